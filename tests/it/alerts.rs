//! The alert rules and queries of the documentation: of metrics that exist, and understood by
//! Prometheus.

use std::{collections::BTreeSet, path::Path, process::Command};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// The queries of the table in docs/monitoring.md.
fn queries() -> Vec<String> {
    let page = read("docs/monitoring.md");
    let (_, table) = page.split_once("## Questions and their queries").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix("` |"));
    rows.map(|row| row.split_once(" | `").unwrap().1.replace("\\|", "|")).collect()
}

/// Words that begin as the names of our metrics do.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("lb_") && word.len() > 3).collect()
}

#[test]
fn rules_and_queries_name_metrics_that_exist() {
    let (rules, queries) = (read("docs/alerts.yaml"), queries().join("\n"));
    let documented = read("docs/metrics.md");
    let asked: BTreeSet<&str> = metrics(&rules).union(&metrics(&queries)).copied().collect();
    assert!(asked.len() > 15, "{asked:?}");
    for name in asked {
        let of_histogram = name.strip_suffix("_bucket");
        let known = [Some(name), of_histogram].into_iter().flatten();
        let mut rows = known.map(|name| format!("\n| `{name}` |"));
        assert!(rows.any(|row| documented.contains(&row)), "{name} is not in docs/metrics.md");
    }
}

#[test]
fn prometheus_understands_them_and_rules_fire_when_they_should() {
    let directory = tempfile::tempdir().unwrap();
    let recorded = directory.path().join("queries.yaml");
    let mut text = "groups:\n- name: queries\n  rules:\n".to_owned();
    for (index, query) in queries().iter().enumerate() {
        text += &format!("  - record: query{index}\n    expr: '{query}'\n");
    }
    std::fs::write(&recorded, text).unwrap();
    let recorded = recorded.to_str().unwrap();
    for arguments in [
        ["check", "rules", "docs/alerts.yaml"],
        ["test", "rules", "tests/prometheus/alerts.yaml"],
        ["check", "rules", recorded],
    ] {
        let Ok(output) = Command::new("promtool").args(arguments).current_dir(ROOT).output() else {
            eprintln!("there is no promtool here, so the rules are not tried");
            return;
        };
        let printed =
            [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        assert!(output.status.success(), "{arguments:?}: {}", printed.concat());
    }
}
