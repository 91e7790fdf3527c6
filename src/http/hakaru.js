// hakaru(name, value) sends one event.
(() => {
  // Events go to the path of this script, without its suffix.
  const url = document.currentScript.src.replace(/\.js([?#].*)?$/, '');
  const unanswered = new Set();
  let queued = [], leaving;

  // A page that is left may send 64 KiB.
  const isLarge = (events, body) => events.length > 1 && body.length > 9e3;
  const inHalves = (send, events, tries) => {
    const middle = events.length >> 1;
    send(events.slice(0, middle), tries);
    send(events.slice(middle), tries);
  };

  const post = (events, tries) => {
    const body = JSON.stringify(events);
    if (isLarge(events, body)) return inHalves(post, events, tries);
    unanswered.add(events);
    const again = () => tries < 5
      ? setTimeout(() => unanswered.delete(events) && post(events, tries + 1), 500 << tries)
      : unanswered.delete(events);
    fetch(url, { method: 'POST', body, keepalive: true }).then(({ status }) => {
      if (status == 429 || status > 499) return again();
      // The others of a wrong one.
      if (unanswered.delete(events) && status == 400 && events[1]) inHalves(post, events, tries);
    }, again);
  };

  const beacon = events => {
    const body = JSON.stringify(events);
    if (isLarge(events, body)) return inHalves(beacon, events);
    if (!navigator.sendBeacon || !navigator.sendBeacon(url, body))
      for (const event of events) new Image().src = url + '.gif?' + new URLSearchParams(event);
  };

  const flush = () => {
    const events = queued;
    queued = [];
    if (events[0]) (leaving || !window.fetch ? beacon : post)(events, 0);
  };

  window.hakaru = (name, value) => {
    const id = crypto.getRandomValues(new Uint32Array(4)).join('-');
    queued.push({ name, value, id });
    if (leaving) flush();
    else if (!queued[1]) setTimeout(flush);
  };

  addEventListener('pagehide', () => {
    leaving = 1;
    flush();
    unanswered.forEach(beacon);
    unanswered.clear();
  });
  addEventListener('pageshow', () => leaving = 0);
})();
