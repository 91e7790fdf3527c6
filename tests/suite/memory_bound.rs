//! What may be taken of memory fits into what the machine has, or is warned of.

use crate::support::Settings;

/// `MemTotal` of this machine, in bytes.
fn machine_bytes() -> u64 {
    let about = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib = about.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

#[test]
fn as_many_connections_are_allowed_as_memory_has_room_for() {
    // More open files than memory has room for connections, on a machine of less than 40 GiB.
    let settings = Settings::sqlite().shell_before("ulimit -n 1000000");
    let hakaru = settings.flag("--cores=1").start();
    let bounds = hakaru.wait_for_event("bounds");
    let (sum, there) = (&bounds["memory_bytes_max"], &bounds["memory_bytes"]);
    assert!(sum.as_u64() < there.as_u64(), "{bounds}");
    assert!(there.as_u64().unwrap() <= machine_bytes(), "{bounds}");
    assert!(hakaru.events("memory_bound_too_high").is_empty());
    hakaru.stop();
}

#[test]
fn more_than_there_is_is_a_warning_at_the_start_and_in_a_check() {
    // 400 GiB and more.
    let settings = || Settings::sqlite().flag("--max-connections=10000000");
    let hakaru = settings().start();
    let line = hakaru.wait_for_event("memory_bound_too_high");
    assert_eq!(line["level"], "warn");
    let message = line["message"].as_str().unwrap();
    let (_, fit) = message.split_once("--max-connections ").unwrap();
    let fit = fit.split(',').next().unwrap().to_owned();
    hakaru.stop();

    let directory = tempfile::tempdir().unwrap();
    let output = settings().flag("check").run_in(directory.path());
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains(" memory: at most"));
    let line = line.unwrap();
    assert!(
        line.starts_with("warning ") && line.contains(&format!("--max-connections {fit},")),
        "{line}"
    );
}
