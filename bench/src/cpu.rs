//! How much of the processor other processes use.

use std::{fs, path::Path, time::Duration};

/// The processor time that all threads of these processes have used so far; `None` if one cannot be looked at.
pub(crate) fn used(pids: &[u32]) -> Option<Duration> {
    pids.iter().map(|pid| of_process(&Path::new("/proc").join(pid.to_string()))).sum()
}

fn of_process(process: &Path) -> Option<Duration> {
    let threads = fs::read_dir(process.join("task")).ok()?;
    // The first number is the time on a processor, in nanoseconds. A thread that has just ended has no file any more.
    let of_thread = |thread: fs::DirEntry| -> Option<u64> {
        fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Some(Duration::from_nanos(threads.flatten().filter_map(of_thread).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_a_process_that_is_not_there_is_not() {
        let me = [std::process::id()];
        let before = used(&me).expect("this process");
        let mut sum = 0_u64;
        while used(&me).expect("this process") < before + Duration::from_millis(20) {
            sum = (0..100_000).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        }
        assert_eq!(used(&[u32::MAX]), None);
    }
}
