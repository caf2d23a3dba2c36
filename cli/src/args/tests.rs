use std::any::TypeId;

use clap::{CommandFactory as _, error::ErrorKind};

use super::{words::below_zero, *};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn refusal(line: &str) -> String {
    parse(line).unwrap_err().to_string()
}

#[test]
fn a_value_of_100_kb_and_a_change_of_nothing_are_one_short_sentence() {
    let words = |line: &str| in_words(&parse(line).unwrap_err()).unwrap();
    let long = words(&format!("lbctl add-pool {}", "a".repeat(100_000)));
    assert!(long.len() < 200 && long.starts_with("NAME: "), "{long}");
    let two = words("lbctl disable-backend b1 b2");
    assert!(two.starts_with("'b2' is one argument too many: a command is about one"), "{two}");
    let none = words("lbctl add-backend nowhere");
    assert!(none.starts_with("ADDRESS: \"nowhere\" "), "{none}");
    let weight = words("lbctl set-backend backend1 --weight 257");
    assert_eq!(weight, "--weight: 257 is outside 0 to 256, for example 10; see --help");
    for line in ["lbctl set-pool default", "lbctl set-backend backend1"] {
        let nothing = words(line);
        assert!(nothing.starts_with("nothing to change: give a setting, for"), "{nothing}");
        assert!(nothing.len() < 120, "{nothing}");
    }
}

#[test]
fn a_number_below_zero_is_called_that_and_no_option() {
    for line in [
        "lbctl add-limit x --rate -1/s",
        "lbctl set-pool default --session-ttl -1h",
        "lbctl set-backend b --max-in-flight -1",
    ] {
        let message = below_zero(&parse(line).unwrap_err()).unwrap();
        assert!(message.contains("'-1'") && message.contains("below zero"), "{message}");
    }
    for line in ["lbctl status -x", "lbctl get nothing", "lbctl add-limit x --rate abc"] {
        assert_eq!(below_zero(&parse(line).unwrap_err()), None, "{line}");
    }
}

#[test]
fn what_is_no_status_and_no_life_of_a_session_is_told_with_what_is() {
    for bad in ["0", "199", "600", "abc"] {
        let text = refusal(&format!("lbctl set-pool default --fallback-status {bad}"));
        assert!(text.contains("write 200 to 599, or none"), "{text}");
    }
    assert!(parse("lbctl set-pool default --fallback-status none").is_ok());
    assert!(parse("lbctl set-pool default --fallback-status 599").is_ok());
    let text = refusal("lbctl set-pool default --session-ttl 0s");
    assert!(text.contains("write 1s to 7d"), "{text}");
}

/// Every flag of every command, the planes' too, that takes a number, a duration or an address.
#[test]
fn a_value_that_cannot_be_read_is_told_with_what_can() {
    let numbers = [
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<f64>(),
        TypeId::of::<Duration>(),
    ];
    let addresses = [TypeId::of::<std::net::IpAddr>(), TypeId::of::<std::net::SocketAddr>()];
    let mut tried = 0;
    for command in Cli::command().get_subcommands() {
        for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            let kind = arg.get_value_parser().type_id();
            let is_bounded = numbers.iter().any(|number| kind == *number);
            if !is_bounded && !addresses.iter().any(|address| kind == *address) {
                continue;
            }
            let flag = arg.get_long().unwrap_or_else(|| panic!("{arg} is no flag"));
            for bad in ["abc", "99999999999999999999d"] {
                let line = [command.get_name().to_owned(), format!("--{flag}={bad}")];
                let refused = command.clone().try_get_matches_from(line);
                let told = refused.err().map(|error| error.to_string()).unwrap_or_default();
                let what = format!("{} --{flag}={bad}: {told}", command.get_name());
                let reason = told.lines().next().unwrap_or_default();
                assert!(reason.contains("for example"), "{what}");
                for jargon in ["invalid digit", "found in string", "IP address syntax"] {
                    assert!(!told.contains(jargon), "{what}");
                }
                let has_range = ["..=", " to "].iter().any(|range| reason.contains(range));
                assert!(has_range || !is_bounded || reason.contains("bytes"), "{what}");
                tried += 1;
            }
        }
    }
    println!("{tried} values");
    assert!(tried > 150, "{tried}");
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_explains_itself() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:\n  lbctl "), "{}", command.get_name());
    }
}

#[test]
fn global_options_are_understood_before_and_behind_the_command() {
    for line in ["lbctl --server a:1,b:2 -o json status", "lbctl status --server a:1,b:2 -o json"] {
        let global = parse(line).unwrap().global;
        assert_eq!(global.server, ["http://a:1", "http://b:2"]);
        assert_eq!(global.output, OutputFormat::Json);
    }
}

#[test]
fn typing_mistakes_get_a_suggestion() {
    let command = |line: &str| in_words(&parse(line).unwrap_err()).unwrap();
    insta::assert_snapshot!(command("lbctl add-backed a:1"), @"there is no command 'add-backed'; did you mean 'add-backend'? 'lbctl --help' lists all");
    assert!(command("lbctl add-rout r").contains("mean 'add-route'?"));
    insta::assert_snapshot!(command("lbctl foo"), @"there is no command 'foo'; 'lbctl --help' lists all");
    assert!(refusal("lbctl set-algorithm default rond_robin").contains("'round_robin'"));
    assert!(refusal("lbctl get backend --servr x").contains("--server"));
    assert!(refusal("lbctl get bakends").contains("backends"));
}

#[test]
fn bad_values_are_explained_before_anything_is_sent() {
    for (line, hint) in [
        ("lbctl add-backend localhost", "no port"),
        ("lbctl add-backend localhost:0", "port 0"),
        ("lbctl add-backend a:1 --weight 257", "0 to 256"),
        ("lbctl add-backend a:1 --id -x", "-x"),
        ("lbctl add-backend a:1 --label novalue", "KEY=VALUE"),
        ("lbctl add-pool a/b", "'/'"),
        ("lbctl set-pool p --connect-timeout 3", "3s"),
        ("lbctl set-pool p --connect-timeout 0s", "1ms"),
        ("lbctl set-listener l --trusted-proxy 10.0.0.0/99", "10.0.0.0/99"),
        ("lbctl add-listener l --max-fields 257", "257 is outside 1 to 256"),
        ("lbctl set-listener l --max-fields 0", "0 is outside 1 to 256"),
        ("lbctl set-listener l --max-head-bytes 10M", "10M is outside 256B to 1MiB"),
        ("lbctl set-listener l --max-request-line-bytes 63", "63 is outside 64B to 1MiB"),
        ("lbctl set-listener l --max-chunk-extension-bytes 17k", "1B to 16KiB"),
        ("lbctl set-listener l --max-drain-bytes 0", "1B to 1MiB"),
        ("lbctl set-listener l --max-trailer-bytes much", "64KiB or 10MB"),
        ("lbctl set-listener l --max-body-bytes 99999999999G", "too large"),
        ("lbctl set-listener l --max-body-bytes 10XB", "or 'unlimited'"),
        ("lbctl set-listener l --max-connections -1", "-1"),
        ("lbctl set-listener l --max-connections many", "unlimited"),
        ("lbctl set-listener l --max-pipelined 10001", "1 to 10000"),
        ("lbctl set-listener l --drain-timeout 25h", "24h"),
        ("lbctl set-pool p --max-idle-connections 10001", "0 to 10000"),
        ("lbctl set-pool p --max-connection-age 48h", "24h"),
        ("lbctl set-pool p --sticky cookies", "none, cookie, header:NAME, ip_hash"),
        ("lbctl set-pool p --sticky header:", "no token"),
        ("lbctl set-pool p --session-ttl 8d", "1s to 7d"),
        ("lbctl set-pool p --session-ttl 1500ms", "whole seconds"),
        ("lbctl set-pool p --tunnel-idle-timeout 300", "300s"),
        ("lbctl add-limit a", "--rate"),
        ("lbctl add-limit a --rate 0/s", "would refuse every request"),
        ("lbctl add-limit a --rate 99999999999/s", "limits nothing"),
        ("lbctl add-limit a --rate fast", "100/s"),
        ("lbctl add-limit a --rate 1/s --burst 0", "0 is outside 1 to 100000000"),
        ("lbctl add-limit a --rate 1/s --key query:q", "header:NAME"),
        ("lbctl add-limit a --rate 1/s --scope world", "fleet, proxy, backend"),
        ("lbctl add-limit a --rate 1/s --pool a --route b", "cannot be used with"),
        ("lbctl --server ftp://x status", "http://"),
        ("lbctl --server nonsense:x status", "its port is no number of 1 to 65535"),
        ("lbctl --timeout 0s status", "1ms"),
        ("lbctl wait backend", "backend/ID"),
        ("lbctl wait revision/x", "number"),
        ("lbctl wait backend/b1 --for applied", "healthy"),
        ("lbctl dev --backends nonsense", "no port"),
        ("lbctl dev --replicas 0", "1 to 64"),
        ("lbctl test-algorithms --url localhost:8080", "http://HOST:PORT"),
        ("lbctl test-algorithms --url https://a/", "TLS"),
        ("lbctl demo-backend --error-rate 2", "0 to 1"),
    ] {
        let text = refusal(line);
        assert!(text.contains(hint), "{line}: {text}");
    }
}

#[test]
fn a_change_of_nothing_is_a_mistake() {
    for line in
        ["lbctl set-backend b1", "lbctl set-pool p", "lbctl set-listener l", "lbctl set-limit l"]
    {
        assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{line}");
    }
}

/// A setting that the group of a set-command forgets could not be given alone.
#[test]
fn every_setting_that_can_be_added_can_be_set_alone() {
    let command = Cli::command();
    for kind in ["pool", "listener"] {
        let add = command.find_subcommand(format!("add-{kind}")).unwrap();
        let set = command.find_subcommand(format!("set-{kind}")).unwrap();
        let group = set.get_groups().find(|group| group.get_id() == "settings").unwrap();
        let of_writes = ["no_wait", "dry_run", "force", "if_revision", "name"];
        for arg in add.get_arguments().filter(|arg| !arg.is_global_set()) {
            let id = arg.get_id();
            if !of_writes.contains(&id.as_str()) {
                assert!(group.get_args().any(|of_group| of_group == id), "{kind} {id}");
            }
        }
    }
}

/// Whoever knows the flags knows the keys of declared state.
#[test]
fn every_flag_of_an_object_is_a_key_of_its_declaration() {
    let schemas = lb_proto::document::schema::definitions("");
    let command = Cli::command();
    for (name, kind) in
        [("add-pool", "Pool"), ("add-listener", "Listener"), ("add-backend", "Backend")]
    {
        let add = command.find_subcommand(name).unwrap();
        let of_writes = ["no-wait", "dry-run", "force", "if-revision"];
        let flags = add.get_arguments().filter(|arg| !arg.is_global_set());
        for flag in flags.filter_map(|arg| arg.get_long()).filter(|f| !of_writes.contains(f)) {
            let key = match flag {
                "trusted-proxy" => "trusted_proxies".to_owned(),
                "label" => "labels".to_owned(),
                "source" => "sources".to_owned(),
                "disabled" => "state".to_owned(),
                flag => flag.replace('-', "_"),
            };
            assert!(schemas[kind]["properties"].get(&key).is_some(), "{name} --{flag}");
        }
    }
}

#[test]
fn every_limit_and_timeout_is_documented() {
    let page = include_str!("../../../docs/limits-and-timeouts.md");
    for name in ["add-pool", "add-listener"] {
        let command = Cli::command();
        let command = command.find_subcommand(name).unwrap();
        let flags = command.get_arguments().filter_map(|arg| arg.get_long());
        for flag in flags.filter(|f| f.starts_with("max-") || f.ends_with("-timeout")) {
            assert!(page.contains(&format!("| `--{flag}` |")), "{name} --{flag}");
        }
    }
}

#[test]
fn sizes_are_read_as_people_write_them() {
    let line = "lbctl set-listener l --max-head-bytes 32k --max-body-bytes 10MB \
                --max-request-line-bytes 4KiB --max-drain-bytes 1000 --max-trailer-bytes 9b \
                --max-connections unlimited";
    let Command::SetListener(args) = parse(line).unwrap().command else {
        panic!("another command");
    };
    let limits = args.settings.limits;
    assert_eq!(limits.max_head_bytes, Some(32 * 1024));
    assert_eq!(limits.max_body_bytes, Some(10_000_000));
    assert_eq!(limits.max_request_line_bytes, Some(4096));
    assert_eq!(limits.max_drain_bytes, Some(1000));
    assert_eq!(limits.max_trailer_bytes, Some(9));
    assert_eq!(args.settings.connections.max_connections, Some(0));
}

#[test]
fn what_is_shown_of_a_bound_that_is_not_there_can_be_given() {
    for line in [
        "lbctl set-pool default --try-timeout off",
        "lbctl set-pool default --try-timeout 0s",
        "lbctl set-pool default --slow-start none",
        "lbctl set-pool default --max-in-flight off",
        "lbctl set-backend b1 --max-in-flight none",
        "lbctl set-listener default --max-connections off",
        "lbctl set-listener default --max-body-bytes none",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    let told = refusal("lbctl set-pool default --try-timeout soon");
    assert!(told.contains("0s to 24h, or off"), "{told}");
    let told = refusal("lbctl set-pool default --slow-start 1h");
    assert!(told.contains("0s to 15m"), "{told}");
}

#[test]
fn files_are_taken_with_the_flag_and_without() {
    for line in ["lbctl validate a.toml", "lbctl validate -f a.toml", "lbctl validate -f a.toml b"]
    {
        let Command::Validate(args) = parse(line).unwrap().command else { panic!("{line}") };
        assert_eq!(
            args.files.iter().count(),
            line.split(' ').count() - 2 - line.matches("-f").count()
        );
    }
    assert!(parse("lbctl apply lb.toml --prune").is_ok());
    assert!(refusal("lbctl diff").contains("--file <FILE>"));
}

#[test]
fn what_is_typed_first_leads_on() {
    let words = |line: &str| in_words(&parse(line).unwrap_err()).unwrap();
    for line in
        ["lbctl status backend1", "lbctl data-plane --id a extra", "lbctl demo-backend --port 1 x"]
    {
        let told = words(line);
        assert!(told.ends_with("too many: this command takes options alone; see --help"), "{told}");
    }
    for line in ["lbctl list", "lbctl ls backends", "lbctl show servers state"] {
        assert!(words(line).contains("'lbctl get backends'"), "{line}: {}", words(line));
    }
    assert!(words("lbctl describe backend1").contains("'lbctl describe backend backend1'"));
    assert!(words("lbctl describe proxy-1").contains("'lbctl describe proxy proxy-1'"));
    assert!(words("lbctl describe web").contains("'lbctl describe backend web'"));
    assert!(matches!(parse("lbctl proxy --id a").unwrap().command, Command::DataPlane(_)));
    let Command::ExplainRoute(args) = parse("lbctl explain-route http://a/x").unwrap().command
    else {
        panic!("another command");
    };
    assert_eq!((args.method, args.url.as_str()), (None, "http://a/x"));
}

#[test]
fn what_peers_call_an_algorithm_is_understood() {
    let Command::SetAlgorithm(args) = parse("lbctl set-algorithm p least_conn").unwrap().command
    else {
        panic!("another command");
    };
    assert_eq!(args.algorithm, "least_connections");
}
