//! Reading the counts of callgrind and strace.

use std::collections::BTreeMap;

/// Instructions that a callgrind output file accounts for, all threads together.
pub(crate) fn callgrind_total(text: &str) -> Option<u64> {
    let totals = text.lines().rev().find_map(|line| line.strip_prefix("totals: "))?;
    totals.split_whitespace().next()?.parse().ok()
}

/// Calls by name, from the table that `strace -c` writes.
pub(crate) fn strace_calls(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // The column of errors is empty where there were none.
            let [share, _seconds, _each, calls, .., name] = words[..] else { return None };
            share.parse::<f64>().ok()?;
            (name != "total").then_some((name.to_owned(), calls.parse().ok()?))
        })
        .collect()
}

/// What each request takes, from two runs of different lengths, so that what start and
/// end take does not count; calls that are rarer than one in 200 are left out.
pub(crate) fn calls_per_request(
    fewer: &BTreeMap<String, u64>,
    more: &BTreeMap<String, u64>,
    requests: u64,
) -> Vec<(String, f64)> {
    let mut calls: Vec<(String, f64)> = more
        .iter()
        .map(|(name, count)| {
            let before = fewer.get(name).copied().unwrap_or_default();
            (name.clone(), (*count as f64 - before as f64) / requests as f64)
        })
        .filter(|(_, each)| each.abs() >= 0.005)
        .collect();
    calls.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 52.10    0.120000          10     12000           sendto
 40.00    0.090000           7     12345       678 recvfrom
  7.90    0.010000           5      2000           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.220000           8     26345       678 total
";

    #[test]
    fn calls_are_read_with_and_without_errors() {
        let calls = strace_calls(TABLE);
        assert_eq!(calls.len(), 3);
        assert_eq!((calls["sendto"], calls["recvfrom"]), (12000, 12345));
    }

    #[test]
    fn what_start_and_end_take_does_not_count() {
        let fewer = BTreeMap::from([("read".to_owned(), 1200), ("mmap".to_owned(), 90)]);
        let more = BTreeMap::from([("read".to_owned(), 5200), ("mmap".to_owned(), 91)]);
        assert_eq!(calls_per_request(&fewer, &more, 2000), [("read".to_owned(), 2.0)]);
    }

    #[test]
    fn the_total_of_callgrind_is_found() {
        let text = "version: 1\nevents: Ir\nsummary: 5\n\nfn=(1) main\n1 5\ntotals: 123456789\n";
        assert_eq!(callgrind_total(text), Some(123_456_789));
        assert_eq!(callgrind_total("events: Ir\n"), None);
    }
}
