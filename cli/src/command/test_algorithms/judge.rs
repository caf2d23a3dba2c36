//! What an algorithm promises, and whether it was kept. No I/O.

/// Who can answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member {
    /// As it calls itself.
    pub(super) server: String,
    pub(super) weight: u32,
}

/// What was found out about one algorithm.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) algorithm: String,
    pub(super) rows: Vec<Row>,
    /// What was promised.
    pub(super) promise: String,
    /// What was not kept; empty when all was.
    pub(super) broken: Vec<String>,
}

/// One server's answers beside those that were to be expected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Row {
    pub(super) server: String,
    pub(super) answers: usize,
    /// None where nothing is promised for a single server.
    pub(super) expected: Option<usize>,
}

/// The next number of requests that the members can share evenly.
pub(super) fn rounded(requests: u32, shares: u32) -> usize {
    (requests.max(1).next_multiple_of(shares.max(1))) as usize
}

/// Exact shares in proportion to `weight`.
pub(super) fn exact(
    algorithm: &str,
    promise: &str,
    members: &[Member],
    answers: &[String],
    weight: impl Fn(&Member) -> u32,
) -> Finding {
    let whole: u32 = members.iter().map(&weight).sum();
    let share = |member: &Member| answers.len() * weight(member) as usize / whole.max(1) as usize;
    let rows = rows(members, answers, |member| Some(share(member)));
    let broken = rows
        .iter()
        .filter(|row| row.expected.is_some_and(|expected| expected != row.answers))
        .map(|row| {
            let expected = row.expected.unwrap_or_default();
            format!("{} answered {} requests and not {expected}", row.server, row.answers)
        })
        .collect();
    Finding { algorithm: algorithm.to_owned(), rows, promise: promise.to_owned(), broken }
}

/// Shares in proportion to the weights, give or take half.
pub(super) fn rough(
    algorithm: &str,
    promise: &str,
    members: &[Member],
    answers: &[String],
) -> Finding {
    let mut finding = exact(algorithm, promise, members, answers, |member| member.weight);
    finding.broken = finding
        .rows
        .iter()
        .filter_map(|row| {
            let expected = row.expected?;
            let (least, most) = (expected / 2, expected + expected.div_ceil(2));
            let message = format!(
                "{} answered {} requests and not {least} to {most}",
                row.server, row.answers
            );
            (!(least..=most).contains(&row.answers)).then_some(message)
        })
        .collect();
    finding
}

/// Each client has one server, and not all have the same.
pub(super) fn sticky(
    algorithm: &str,
    promise: &str,
    members: &[Member],
    by_client: &[(String, Vec<String>)],
) -> Finding {
    let all: Vec<String> = by_client.iter().flat_map(|(_, answers)| answers.clone()).collect();
    let rows = rows(members, &all, |_| None);
    let mut broken: Vec<String> = by_client
        .iter()
        .filter(|(_, answers)| answers.iter().any(|server| *server != answers[0]))
        .map(|(client, answers)| format!("client {client} got {}", answers.join(", ")))
        .collect();
    let busy = rows.iter().filter(|row| row.answers > 0).count();
    if members.len() > 1 && busy < 2 {
        broken.push(format!("all {} clients got the same server", by_client.len()));
    }
    Finding { algorithm: algorithm.to_owned(), rows, promise: promise.to_owned(), broken }
}

/// One client has one server.
pub(super) fn single(
    algorithm: &str,
    promise: &str,
    members: &[Member],
    answers: &[String],
) -> Finding {
    let rows = rows(members, answers, |_| None);
    let busy: Vec<&str> =
        rows.iter().filter(|row| row.answers > 0).map(|row| row.server.as_str()).collect();
    let broken = match busy.as_slice() {
        [] | [_] => Vec::new(),
        several => vec![format!("this client got {}", several.join(", "))],
    };
    Finding { algorithm: algorithm.to_owned(), rows, promise: promise.to_owned(), broken }
}

fn rows(
    members: &[Member],
    answers: &[String],
    expected: impl Fn(&Member) -> Option<usize>,
) -> Vec<Row> {
    let row = |member: &Member| Row {
        server: member.server.clone(),
        answers: answers.iter().filter(|server| **server == member.server).count(),
        expected: expected(member),
    };
    members.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<Member> {
        let member = |(name, weight): (&str, u32)| Member { server: name.to_owned(), weight };
        [("a", 1), ("b", 2), ("c", 1)].map(member).to_vec()
    }

    fn answers(counts: &[(&str, usize)]) -> Vec<String> {
        let many = |&(name, count): &(&str, usize)| vec![name.to_owned(); count];
        counts.iter().flat_map(many).collect()
    }

    #[test]
    fn one_answer_too_many_breaks_an_exact_promise() {
        let weighted = |counts: &[(&str, usize)]| {
            exact("w", "", &members(), &answers(counts), |member| member.weight).broken
        };
        assert!(weighted(&[("a", 5), ("b", 10), ("c", 5)]).is_empty());
        let broken = weighted(&[("a", 6), ("b", 9), ("c", 5)]);
        assert_eq!(broken[0], "a answered 6 requests and not 5");
        assert_eq!(broken.len(), 2);
    }

    #[test]
    fn a_rough_promise_has_room_and_ends_somewhere() {
        let lc = |counts: &[(&str, usize)]| rough("l", "", &members(), &answers(counts)).broken;
        assert!(lc(&[("a", 7), ("b", 8), ("c", 5)]).is_empty());
        assert_eq!(lc(&[("a", 0), ("b", 15), ("c", 5)]), ["a answered 0 requests and not 2 to 8"]);
    }

    #[test]
    fn a_client_that_moves_and_clients_that_never_differ_are_noticed() {
        let client = |name: &str, answers: &[&str]| {
            (name.to_owned(), answers.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let judged =
            |clients: &[(String, Vec<String>)]| sticky("i", "", &members(), clients).broken;
        assert!(judged(&[client("1", &["a", "a"]), client("2", &["b", "b"])]).is_empty());
        assert_eq!(judged(&[client("1", &["a", "b"])]), ["client 1 got a, b"]);
        let same = judged(&[client("1", &["a", "a"]), client("2", &["a", "a"])]);
        assert_eq!(same, ["all 2 clients got the same server"]);
    }

    #[test]
    fn one_client_that_gets_two_servers_is_noticed() {
        let judged =
            |counts: &[(&str, usize)]| single("i", "", &members(), &answers(counts)).broken;
        assert!(judged(&[("b", 20)]).is_empty());
        assert_eq!(judged(&[("b", 20), ("c", 1)]), ["this client got b, c"]);
    }

    #[test]
    fn requests_are_rounded_up_to_whole_rounds() {
        assert_eq!([rounded(1, 3), rounded(40, 4), rounded(41, 4)], [3, 40, 44]);
    }
}
