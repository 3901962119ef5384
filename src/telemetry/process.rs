//! Memory and files of this process, read from `/proc` when somebody scrapes.

/// Resident bytes and open files; 0 where the system does not say.
pub(super) fn usage() -> (i64, i64) {
    (resident_bytes().unwrap_or(0), open_files().unwrap_or(0))
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<i64>().ok()?.checked_mul(1024)
}

fn open_files() -> Option<i64> {
    i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}
