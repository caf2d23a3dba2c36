//! Whole documents: what is read, what is refused, and what comes back.

mod round_trip;

use lb_core::model::{Kind, Resource};

use super::*;

fn source(text: &str) -> Source {
    Source { name: "lb.toml".to_owned(), text: text.to_owned(), format: Format::Toml }
}

fn fresh(kind: Kind, name: &str) -> bool {
    name == "default" && matches!(kind, Kind::Pool | Kind::Listener)
}

fn read(text: &str) -> Result<Declaration, Problems> {
    Declaration::read(&[source(text)], fresh)
}

/// The lines of a refusal.
fn refusal(text: &str) -> Vec<String> {
    let problems = read(text).expect_err(text);
    problems.list().iter().map(ToString::to_string).collect()
}

fn resources(declaration: &Declaration) -> Vec<Resource> {
    declaration.wishes.iter().map(|wish| wish.resource.clone()).collect()
}

#[test]
fn all_faults_are_told_at_once_each_with_its_place() {
    assert!(read("").unwrap().wishes.is_empty(), "an empty document declares nothing");
    let text = r#"
[[pools]]
name = "web"
fallback_pool = "wep"
helth_path = "/"
rise = 0
fall = 101
request_timeout = 5
algorithm = "rond_robin"

[[backends]]
pool = "wep"
weight = 257

[[backend]]
address = "a:1"

[[routes]]
name = "r"
pool = "web"
listener = "internal"
path = "/a"
path_prefix = "b"
"#;
    let told = refusal(text);
    for (place, words) in [
        ("lb.toml:4:17", r#"fallback_pool "wep" does not exist; did you mean "web"?"#),
        ("lb.toml:5:1", r#"unknown key "helth_path" of a pool; did you mean "health_path"?"#),
        ("lb.toml:6:8", "pool.rise 0 is outside 1 to 100"),
        ("lb.toml:7:8", "pool.fall 101 is outside 1 to 100"),
        ("lb.toml:8:19", r#"request_timeout: 5 has no unit; write "5s" or "5ms""#),
        ("lb.toml:9:13", "unknown algorithm \"rond_robin\""),
        ("lb.toml:11:1", "this backend has no address"),
        ("lb.toml:12:8", r#"pool "wep" does not exist; did you mean "web"?"#),
        ("lb.toml:13:10", "weight 257 is outside 0 to 256"),
        ("lb.toml:15:3", r#"unknown key "backend" of a document; did you mean "backends"?"#),
        ("lb.toml:21:12", r#"listener "internal" does not exist"#),
        ("lb.toml:22:8", "give a path or a path prefix, not both"),
        ("lb.toml:23:15", "must begin with '/'"),
    ] {
        let line = told.iter().find(|line| line.starts_with(&format!("{place}: ")));
        assert!(line.is_some_and(|line| line.contains(words)), "{place} {words}: {told:#?}");
    }
    assert_eq!(told.len(), 13, "{told:#?}");
}

#[test]
fn every_kind_of_mistake_is_a_sentence_with_a_place() {
    for (text, place, words) in [
        ("[[pools]]\nname = ", "2:8", "the file is no TOML"),
        ("[pools]\nname = \"a\"", "1:2", "write [[pools]] for each pool"),
        ("pools = [1]", "1:10", "a pool is a table"),
        ("[[pools]]\nname = \"a b\"", "2:8", "use letters, digits"),
        ("[[pools]]\nname = 1", "2:8", "1 is no text; write it in quotes"),
        ("[[pools]]\nname = \"a\"\nname = \"b\"", "3:1", "the file is no TOML"),
        ("[[pools]]\nname = \"a\"\n[[pools]]\nname = \"a\"", "4:1", "first at lb.toml:1:1"),
        ("[[pools]]\nname = \"a\"\nrise = -1", "3:8", "-1 is below zero"),
        ("[[pools]]\nname = \"a\"\nrise = 99999999999", "3:8", "99999999999 is too large"),
        ("[[pools]]\nname = \"a\"\nrise = \"1\"", "3:8", "without quotes"),
        ("[[pools]]\nname = \"a\"\nchoices = 3", "3:11", "belongs to least_connections"),
        ("[[pools]]\nname = \"a\"\nhealth = \"tpc\"", "3:10", "`http`, `tcp`, `none`"),
        (
            "[[pools]]\nname = \"a\"\nhealth = \"tcp\"\nhealth_path = \"/\"",
            "4:15",
            "belongs to HTTP checks",
        ),
        ("[[pools]]\nname = \"a\"\nconnect_timeout = \"0s\"", "3:19", "outside 1ms to 24h"),
        ("[[pools]]\nname = \"a\"\nconnect_timeout = \"1.5\"", "3:19", "for example 5s"),
        ("[[backends]]\naddress = \"a\"", "2:11", "no port"),
        ("[[backends]]\naddress = \"https://a:443\"", "2:11", "TLS to backends is not supported"),
        ("[[backends]]\naddress = \"a:1\"\nhealth_path = \"/\"", "3:1", "checks are the pool's"),
        ("[[listeners]]\nname = \"a\"\nbind = \":80\"", "3:1", "--listen NAME=ADDR:PORT"),
        ("[[listeners]]\nname = \"a\"\ntls_cert = \"x\"", "3:1", "TLS is not supported yet"),
        (
            "[[routes]]\nname = \"a\"\npool = \"default\"\npath_prefix = \"/a/*\"",
            "4:15",
            "write the path prefix \"/a\"",
        ),
        ("[[backends]]\naddress = \"a:1\"\nid = \"-\"", "3:6", "begins with a sign"),
        ("[[backends]]\naddress = \"a:1\"\nstate = \"down\"", "3:9", "`draining`"),
        (
            "[[backends]]\naddress = \"a:1\"\n[[backends]]\naddress = \"A:1\"",
            "3:1",
            "has the address a:1 already, at lb.toml:1:1",
        ),
        ("[[listeners]]\nname = \"a\"\nmax_fields = 257", "3:14", "outside 1 to 256"),
        ("[[listeners]]\nname = \"a\"\nmax_head_bytes = \"9XB\"", "3:18", "64KiB"),
        ("[[listeners]]\nname = \"a\"\nmax_head_bytes = \"8GiB\"", "3:18", "far too large"),
        ("[[listeners]]\nname = \"a\"\nmax_connections = \"many\"", "3:19", "\"unlimited\""),
        ("[[listeners]]\nname = \"a\"\ntrusted_proxies = [\"x\"]", "3:19", "not a network"),
        (
            "[[listeners]]\nname = \"a\"\ntrust_xff = \"always\"\ntrusted_proxies = []",
            "4:19",
            "believes everybody",
        ),
        ("[[routes]]\nname = \"a\"", "1:1", "this route has no pool"),
        (
            "[[routes]]\nname = \"a\"\npool = \"default\"\npools = [{ pool = \"default\" }]",
            "4:9",
            "not both",
        ),
        ("[[routes]]\nname = \"a\"\npools = [{ pool = \"nowhere\" }]", "3:19", "nowhere"),
        ("[[routes]]\nname = \"a\"\npools = [{ pool = \"default\", wait = 1 }]", "3:9", "wait"),
        ("[[routes]]\nname = \"a\"\npools = [\"nowhere=9\"]", "3:10", "pool \"nowhere\" does not"),
        ("[[routes]]\nname = \"a\"\npools = [\"default=\"]", "3:9", "\"default=90\""),
        ("[[routes]]\nname = \"a\"\npools = [\"default=257\"]", "3:9", "0 to 256"),
        ("[[routes]]\nname = \"a\"\npools = [7]", "3:9", "write \"NAME\""),
        ("[[routes]]\nname = \"a\"\npools = \"default\"", "3:9", "write one in [ ]"),
        ("[[routes]]\nname = \"a\"\npool = \"default\"\nhost = \"a b\"", "4:8", "*.NAME"),
    ] {
        let told = refusal(text);
        assert_eq!(told.len(), 1, "{text}: {told:#?}");
        assert!(told[0].starts_with(&format!("lb.toml:{place}: ")), "{text}: {told:?}");
        assert!(told[0].contains(words), "{text}: {told:?}");
    }
}

#[test]
fn json_has_places_too() {
    let text = "{\n  \"pools\": [\n    {\"name\": \"a\",\n     \"rise\": 0, \"ryse\": 1}]\n}";
    let json = Source { name: "a.json".to_owned(), text: text.to_owned(), format: Format::Json };
    let problems = Declaration::read(&[json], fresh).unwrap_err();
    let told = problems.to_string();
    assert!(told.contains("a.json:4:14: pool.rise 0"), "{told}");
    assert!(told.contains("a.json:4:25: unknown key \"ryse\""), "{told}");
    for (text, words) in [
        ("{\"pools\": [}", "1:12: the file is no JSON"),
        ("[]", "1:1: this is a list, as 'lbctl get -o json' prints it"),
        ("7", "1:1: the document is no object; write {\"pools\""),
        ("{\"pools\":{\"name\":\"web\"}}", "pools is a list; write \"pools\": [{...}]"),
        ("{\"pools\":[1]}", "a pool is an object of keys and values"),
        (
            "{\"backends\":[{\"address\":\"a:1\",\"pool\":\"x\"}]}",
            "declare it with \"pools\": [{...}] and \"name\": \"x\"",
        ),
        ("{\"pools\": [{\"name\": \"a\", \"name\": \"b\"}]}", "the key \"name\" is given twice"),
    ] {
        let json = Source { name: "a".to_owned(), text: text.to_owned(), format: Format::Json };
        let told = Declaration::read(&[json], fresh).unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
    }
}

/// As flags have them, or as tables, as they are written; also both in one list.
#[test]
fn the_pools_of_a_route_are_texts_or_tables() {
    let route = |pools: &str| {
        let text =
            format!("[[pools]]\nname = \"web\"\n[[routes]]\nname = \"r\"\npools = [{pools}]");
        resources(&read(&text).unwrap()).remove(1)
    };
    let tables = route(r#"{ pool = "web", weight = 90 }, { pool = "default" }"#);
    assert_eq!(route(r#""web=90", "default""#), tables);
    assert_eq!(route(r#""web=90", { pool = "default", weight = 1 }"#), tables);
}

#[test]
fn the_reference_shows_what_may_be_written() {
    let page = reference();
    for row in ["| `session_strict` |", "| `outlier_detection` |", "| `shadow` |"] {
        let line = page.lines().find(|line| line.starts_with(row)).unwrap();
        assert!(line.ends_with("| `true`, `false` |"), "{line}");
    }
    assert!(
        page.contains("| `round_robin`, `weighted_round_robin`, `ip_hash`, `least_connections` |")
    );
    assert!(page.contains("| `fleet`, `proxy`, `backend` |"));
    assert!(page.contains("| list of `NAME` or `NAME=WEIGHT` |"));
}

#[test]
fn files_may_refer_to_each_other() {
    let pools = source("[[pools]]\nname = \"web\"");
    let routes = source("[[routes]]\nname = \"r\"\npool = \"web\"");
    let declaration = Declaration::read(&[routes, pools], fresh).unwrap();
    let names: Vec<_> = resources(&declaration).iter().map(|r| r.key().to_string()).collect();
    assert_eq!(names, ["pool web", "route r"]);
}

/// Compares, with what there is read from a document, too.
fn compare(there_is: &str, declared: &str, prune: bool) -> Vec<String> {
    let current = resources(&read(there_is).unwrap());
    changes(&read(declared).unwrap(), &current, prune)
        .iter()
        .map(|c| format!("{} {} {} ({})", c.kind, c.name, c.action.name(), c.details()))
        .collect()
}

#[test]
fn only_what_differs_changes() {
    let there_is = "[[pools]]\nname = \"default\"\nrise = 3\n[[backends]]\nid = \"b1\"\n\
        address = \"a:1\"\nlabels = { zone = \"a\" }\n[[backends]]\nid = \"b2\"\naddress = \"a:2\"";
    let declared = "[[pools]]\nname = \"default\"\n[[backends]]\naddress = \"a:1\"\nweight = 3\n\
        [[backends]]\naddress = \"a:3\"\nlabels = { x = \"y\" }";
    assert_eq!(
        compare(there_is, declared, false),
        [
            "pool default changed (rise: 3 -> 2)",
            "backend b1 changed (weight: 1 -> 3, labels: zone=a -> none)",
            "backend a:3 created (address: a:3, labels: x=y)",
        ]
    );
    let pruned = compare(there_is, declared, true);
    assert_eq!(pruned[3..], ["backend b2 removed ()"]);
}

#[test]
fn a_backend_that_is_named_elsewhere_is_not_meant_by_its_address() {
    let there_is = "[[backends]]\nid = \"b1\"\naddress = \"a:1\"";
    let declared = "[[backends]]\nid = \"b1\"\naddress = \"a:2\"\n[[backends]]\naddress = \"a:1\"";
    let told = compare(there_is, declared, false);
    assert_eq!(told[0], "backend b1 changed (address: a:1 -> a:2)");
    assert_eq!(told[1], "backend a:1 created (address: a:1)");
}

#[test]
fn what_a_fresh_control_plane_holds_is_pruned_only_if_it_is_in_the_way() {
    let there_is = "[[pools]]\nname = \"default\"\n[[listeners]]\nname = \"default\"\n\
        [[routes]]\nname = \"default\"\npool = \"default\"";
    assert_eq!(compare(there_is, "", true), [""; 0]);
    let special = "[[routes]]\nname = \"api\"\npool = \"default\"\npath_prefix = \"/api\"";
    assert_eq!(compare(there_is, special, true).len(), 1);
    let everything = "[[routes]]\nname = \"all\"\npool = \"default\"";
    assert_eq!(compare(there_is, everything, true)[1], "route default removed ()");
}

#[test]
fn the_schema_knows_every_default_and_every_range() {
    let definitions = schema::definitions("#/$defs/");
    assert_eq!(definitions["Pool"]["properties"]["request_timeout"]["default"], "30s");
    assert_eq!(definitions["Pool"]["properties"]["rise"]["maximum"], 100);
    assert_eq!(definitions["Backend"]["properties"]["weight"]["$ref"], "#/$defs/Number");
    assert_eq!(definitions["Pool"]["additionalProperties"], false);
    for kind in DECLARED_KINDS {
        let schema = &definitions[schema::type_name(kind)]["properties"];
        for key in changes::keys_of(kind) {
            let about = schema[*key]["description"].as_str().unwrap_or_default();
            assert!(!about.is_empty(), "{kind} {key}");
            // Names, addresses, and keys that exclude others have no default.
            let has_default = schema[*key].get("default").is_some();
            let needs_none = export::required(kind).contains(key)
                || ["id", "path", "pools"].contains(key)
                || (kind, *key) == (Kind::Route, "pool")
                || (kind == Kind::Limit && ["burst", "pool", "route"].contains(key))
                || key.starts_with("fallback_");
            assert_eq!(has_default, !needs_none, "{kind} {key}");
        }
    }
}

/// The pages that are made from the types. `LB_BLESS=1` writes them anew.
#[test]
fn the_published_schema_and_the_reference_are_those_of_the_types() {
    const BEGIN: &str = "<!-- keys: begin -->\n";
    const END: &str = "<!-- keys: end -->";
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let (schema_path, page_path) = (docs.join("lb.schema.json"), docs.join("configuration.md"));
    let schema = format!("{:#}\n", schema::json_schema());
    let page = std::fs::read_to_string(&page_path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let wanted = format!("{head}{BEGIN}\n{}{END}{tail}", reference());
    if std::env::var_os("LB_BLESS").is_some() {
        std::fs::write(&schema_path, &schema).unwrap();
        std::fs::write(&page_path, &wanted).unwrap();
        return;
    }
    let remedy = "run this test with LB_BLESS=1 and look at the difference";
    assert_eq!(std::fs::read_to_string(schema_path).unwrap_or_default(), schema, "{remedy}");
    assert_eq!(page, wanted, "{remedy}");
}

#[test]
fn a_file_of_another_kind_is_told_in_few_lines() {
    let passwd = "root:x:0:0:root:/root:/bin/bash\n".repeat(40);
    let source = Source { name: "passwd".to_owned(), text: passwd, format: Format::Toml };
    let problems = Declaration::read(&[source], |_, _| false).unwrap_err();
    assert_eq!(problems.list().len(), 4, "{problems}");
    let last = problems.list()[3].to_string();
    assert!(last.ends_with(" more such faults; is it the right file?"), "{last}");
}
