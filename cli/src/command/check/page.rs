//! The checklist as people read it.

use crate::{
    command::judgement::{Finding, Level},
    format,
    output::{Cell, Screen, Tone, speaks_unicode},
};

/// Groups with their checks, a remedy under each that is not passed.
pub(super) fn page(checks: &[Finding], screen: Screen) -> String {
    render(checks, speaks_unicode(), |text, tone| screen.paint(&Cell::toned(text, tone)))
}

fn render(checks: &[Finding], unicode: bool, paint: impl Fn(&str, Tone) -> String) -> String {
    let mut text = String::new();
    let mut group = "";
    for check in checks {
        if check.group != group {
            group = check.group;
            text += if text.is_empty() { "" } else { "\n" };
            text += &format!("{group}\n");
        }
        let (mark, ascii, tone) = match check.level {
            Level::Ok => ("√", "[ok]", Tone::Good),
            Level::Warning => ("‼", "[!!]", Tone::Warning),
            Level::Failed => ("×", "[xx]", Tone::Bad),
        };
        let mark = paint(if unicode { mark } else { ascii }, tone);
        text += &format!("{mark} {}\n", check.message.replace(char::is_control, " "));
        if let Some(remedy) = &check.remedy {
            text += &format!("    next: {remedy}\n");
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let failed = count(Level::Failed);
    let warnings = format::count(count(Level::Warning), "warning", "warnings");
    text += &match failed {
        0 => format!("\nnothing failed, {warnings}\n"),
        _ => format!("\n{} failed, {warnings}\n", format::count(failed, "check", "checks")),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: Level, message: &str, remedy: Option<&str>) -> Finding {
        Finding {
            group: "backends",
            check: "backend_state",
            level,
            object: None,
            message: message.to_owned(),
            remedy: remedy.map(str::to_owned),
            is_advice: false,
        }
    }

    #[test]
    fn marks_come_in_two_alphabets() {
        let checks = [
            finding(Level::Ok, "all up", None),
            finding(Level::Warning, "b2 unknown", Some("wait")),
            finding(Level::Failed, "b3 down", Some("start it")),
        ];
        let plain = |text: &str, _| text.to_owned();
        insta::assert_snapshot!(render(&checks, true, plain), @r"
        backends
        √ all up
        ‼ b2 unknown
            next: wait
        × b3 down
            next: start it

        1 check failed, 1 warning
        ");
        let ascii = render(&checks, false, plain);
        assert!(ascii.is_ascii() && ascii.contains("[xx] b3 down"), "{ascii}");
    }
}
