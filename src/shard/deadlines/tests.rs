//! Connections on sockets of this machine, and a clock that is turned by hand.

use super::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The result of a read of `stream`; `None` if it would wait.
fn read(mut stream: &UnixStream) -> Option<usize> {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 8]) {
        Ok(length) => Some(length),
        Err(fault) => {
            assert_eq!(fault.kind(), ErrorKind::WouldBlock);
            None
        }
    }
}

fn pass(deadlines: &mut Deadlines, seconds: u32) {
    for _ in 0..seconds {
        deadlines.tick();
        assert_eq!(deadlines.sweep(EndEarly::None), []);
    }
}

#[test]
fn a_phase_ends_after_its_time_and_not_before() {
    for (phase, seconds) in [(Phase::Idle, 75), (Phase::Request, 10), (Phase::Answer, 10)] {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut deadlines = Deadlines::default();
        let id = deadlines.watch(ours.as_raw_fd());
        deadlines.begin(id, phase);
        pass(&mut deadlines, seconds);
        assert_eq!(
            (read(&ours), deadlines.is_late(id)),
            (None, false),
            "{phase:?}"
        );
        pass(&mut deadlines, 1);
        assert_eq!(
            (read(&ours), deadlines.is_late(id)),
            (Some(0), true),
            "{phase:?}"
        );
    }
}

#[test]
fn more_of_the_same_head_gives_no_more_time() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut deadlines = Deadlines::default();
    let id = deadlines.watch(ours.as_raw_fd());
    for _ in 0..11 {
        deadlines.stay(id, Phase::Request);
        pass(&mut deadlines, 1);
    }
    assert_eq!(read(&ours), Some(0));
}

#[test]
fn a_drain_ends_idle_connections_first() {
    let (idle, _far_idle) = UnixStream::pair().unwrap();
    let (busy, _far_busy) = UnixStream::pair().unwrap();
    let mut deadlines = Deadlines::default();
    deadlines.watch(idle.as_raw_fd());
    let id = deadlines.watch(busy.as_raw_fd());
    deadlines.begin(id, Phase::Request);
    assert_eq!(deadlines.sweep(EndEarly::Idle), []);
    assert_eq!((read(&idle), read(&busy)), (Some(0), None));
    assert_eq!(deadlines.sweep(EndEarly::All), []);
    assert_eq!(read(&busy), Some(0));
}

#[test]
fn the_connection_that_is_idle_longest_gives_way() {
    let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
    let mut deadlines = Deadlines::default();
    let ids: Vec<_> = pairs
        .iter()
        .map(|(ours, _)| deadlines.watch(ours.as_raw_fd()))
        .collect();
    deadlines.begin(ids[0], Phase::Idle);
    deadlines.begin(ids[1], Phase::Request);
    // A request has arrived that is not read yet.
    (&pairs[2].1).write_all(b"GET").unwrap();
    let now = Instant::now();
    let mut closed = Vec::new();
    while deadlines.close_longest_idle(now) {
        let is_new = |&index: &usize| {
            !closed.contains(&index) && index != 2 && read(&pairs[index].0) == Some(0)
        };
        closed.extend((0..4).find(is_new));
    }
    assert_eq!(closed, [3, 0]);
    assert_eq!((read(&pairs[1].0), read(&pairs[2].0)), (None, Some(3)));
    // What ends so is not late: nothing was begun that a 408 could be said of.
    assert!(!deadlines.is_late(ids[3]));
}

#[test]
fn many_connections_are_not_looked_at_for_each_new_one() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut deadlines = Deadlines::default();
    for _ in 0..10_000 {
        deadlines.watch(ours.as_raw_fd());
    }
    let now = Instant::now();
    let mut count = |now| {
        (0..1_000)
            .take_while(|_| deadlines.close_longest_idle(now))
            .count()
    };
    // Those of one look, and no other look at the same moment.
    assert_eq!(count(now), FOUND_AT_ONCE);
    assert_eq!(count(now + LOOK_INTERVAL * 10_000), FOUND_AT_ONCE);
}

/// Both ends of a connection by TCP.
fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, far)
}

/// After how many seconds an answer is abandoned that waits; `None`: not within a minute.
fn abandoned_after(ours: &TcpStream) -> Option<u32> {
    let mut deadlines = Deadlines::default();
    let id = deadlines.watch(ours.as_raw_fd());
    deadlines.begin(id, Phase::AwaitingAck(AckTicket::default()));
    let abandoned = (1..60).find(|_| {
        deadlines.tick();
        deadlines.sweep(EndEarly::None) == [AckTicket::default()]
    });
    assert_eq!(deadlines.is_late(id), abandoned.is_some());
    abandoned
}

fn reset(far: TcpStream) {
    let socket = socket2::SockRef::from(&far);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn an_answer_waits_for_as_long_as_its_sender_is_there() {
    let (ours, mut far) = tcp();
    assert_eq!(abandoned_after(&ours), None);
    far.write_all(b"GET /ok").unwrap();
    assert_eq!(abandoned_after(&ours), None);
    // What it sent is not read yet, and still it is gone.
    reset(far);
    assert_eq!(abandoned_after(&ours), Some(PEER_LOOK_SECONDS));
}

#[test]
fn one_that_sends_no_more_has_some_seconds_to_be_answered() {
    let (ours, far) = tcp();
    far.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(abandoned_after(&ours), Some(PEER_LOOK_SECONDS + 11));
    let (ours, far) = tcp();
    reset(far);
    assert_eq!(abandoned_after(&ours), Some(PEER_LOOK_SECONDS));
}

#[test]
fn an_end_of_input_of_our_own_making_is_no_end_of_the_sender() {
    let (ours, _far) = tcp();
    let mut deadlines = Deadlines::default();
    let id = deadlines.watch(ours.as_raw_fd());
    assert!(deadlines.close_longest_idle(Instant::now()));
    // A request that came that very moment was read all the same.
    deadlines.begin(id, Phase::AwaitingAck(AckTicket::default()));
    pass(&mut deadlines, 60);
    assert!(!deadlines.is_late(id));
}

/// Counts `turns` in one second. Returns whether one of them made the connection busy, and how many connections stopped being
/// busy at its end.
fn second(deadlines: &mut Deadlines, id: ConnectionId, turns: u8) -> (bool, usize) {
    let became_busy = (0..turns).filter(|_| deadlines.count_turn(id, 1)).count();
    assert!(became_busy <= 1);
    deadlines.begin(id, Phase::Idle);
    (became_busy == 1, deadlines.end_of_busy())
}

#[test]
fn a_connection_is_busy_with_many_turns_in_a_second_until_it_is_slow_for_some() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut deadlines = Deadlines::default();
    let id = deadlines.watch(ours.as_raw_fd());
    for _ in 0..10 {
        assert_eq!(second(&mut deadlines, id, BUSY_TURNS - 1), (false, 0));
    }
    assert!(!deadlines.may_move(id));
    assert_eq!(second(&mut deadlines, id, 100), (true, 0));
    assert_eq!(
        second(&mut deadlines, id, 100),
        (false, 0),
        "it is counted once"
    );
    for _ in 1..SLOW_SECONDS {
        assert_eq!(second(&mut deadlines, id, BUSY_TURNS - 1), (false, 0));
    }
    assert_eq!(second(&mut deadlines, id, BUSY_TURNS), (false, 0));
    for _ in 1..SLOW_SECONDS {
        assert_eq!(second(&mut deadlines, id, 0), (false, 0));
    }
    assert!(deadlines.may_move(id));
    assert_eq!(second(&mut deadlines, id, 0), (false, 1));
    assert_eq!(second(&mut deadlines, id, 0), (false, 0));
    assert!(!deadlines.may_move(id));
    assert!(!deadlines.forget(id));
}

#[test]
fn a_turn_with_many_events_counts_as_several() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut deadlines = Deadlines::default();
    for (events, turns) in [(0, 16), (63, 16), (64, 8), (1000, 1), (u64::MAX, 1)] {
        let id = deadlines.watch(ours.as_raw_fd());
        let counted = (1..).find(|_| deadlines.count_turn(id, events));
        assert_eq!(counted, Some(turns), "{events}");
        assert!(deadlines.forget(id));
    }
}

#[test]
fn a_busy_connection_whose_answer_waits_stays_busy() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut deadlines = Deadlines::default();
    let id = deadlines.watch_busy(ours.as_raw_fd());
    for phase in [
        Phase::AwaitingAck(AckTicket::default()),
        Phase::Request,
        Phase::Answer,
    ] {
        deadlines.begin(id, phase);
        for _ in 0..2 * SLOW_SECONDS {
            assert_eq!(deadlines.end_of_busy(), 0, "{phase:?}");
        }
    }
    assert!(deadlines.forget(id));
}

#[test]
fn a_connection_whose_input_was_shut_does_not_move() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut deadlines = Deadlines::default();
    let id = deadlines.watch_busy(ours.as_raw_fd());
    assert!(deadlines.may_move(id));
    assert!(deadlines.close_longest_idle(Instant::now()));
    assert!(!deadlines.may_move(id));
}
