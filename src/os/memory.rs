//! How much memory the process may use.

use std::fs;
use std::path::Path;

/// Bytes of memory that the machine has, or the least that the process's cgroup and those above it allow,
/// whichever is less. `None` where the kernel says neither.
pub fn allowed() -> Option<u64> {
    allowed_under(Path::new("/"))
}

/// The same of a file system that is at `root`.
fn allowed_under(root: &Path) -> Option<u64> {
    let total = machine(root);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| cgroup_limits(root, line));
    total.into_iter().chain(limits).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn machine(root: &Path) -> Option<u64> {
    let about = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = about
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().split(' ').next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The limits of a line of `/proc/self/cgroup` and of all groups above.
fn cgroup_limits(root: &Path, line: &str) -> Vec<u64> {
    // Its number, its controllers, its path. Version 2 has no controllers there.
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let limit = |group: &Path| {
        let group = group.strip_prefix("/").unwrap_or(group);
        let text = fs::read_to_string(root.join(mount).join(group).join(file));
        // `max` is no number.
        text.ok()?.trim().parse().ok()
    };
    Path::new(path).ancestors().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is allowed where the files of `/` are these.
    fn allowed_with(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        allowed_under(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree:  1 kB\n");

    #[test]
    fn this_machine_has_memory() {
        assert!(allowed().is_some_and(|bytes| bytes > 1024 * 1024));
    }

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        assert_eq!(allowed_with(&[]), None);
        assert_eq!(allowed_with(&[MEMINFO]), Some(1_024_000));
        let second = [
            MEMINFO,
            ("proc/self/cgroup", "0::/system.slice/hakaru.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "500000\n"),
            (
                "sys/fs/cgroup/system.slice/hakaru.service/memory.max",
                "max\n",
            ),
        ];
        assert_eq!(allowed_with(&second), Some(500_000));
        let first = [
            MEMINFO,
            ("proc/self/cgroup", "4:memory:/a/b\n1:cpu:/\n0::/\n"),
            (
                "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "700000\n"),
        ];
        assert_eq!(allowed_with(&first), Some(700_000));
        // A container that sees its own group as the root of all.
        let inside = [
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "300000\n"),
        ];
        assert_eq!(allowed_with(&inside), Some(300_000));
    }
}
