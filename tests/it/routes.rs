//! Which request goes where, by host, path and listener, as operators say it with `lbctl`
//! and as clients see it.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_tests::{
    backend::Backend,
    client::{Client, Response, exchange, get},
    cluster::Cluster,
    load::Load,
};

use crate::{one_proxy, program};

/// A pool with one backend that says the pool's name.
async fn add_pool(cluster: &Cluster, name: &str) -> Backend {
    let backend = Backend::saying(name);
    let address = backend.address().to_string();
    lbctl(cluster, &format!("add-pool {name} --health none")).await;
    lbctl(cluster, &format!("add-backend {address} --pool {name}")).await;
    cluster.settled().await;
    backend
}

async fn lbctl(cluster: &Cluster, line: &str) -> String {
    let args: Vec<&str> = line.split_whitespace().collect();
    cluster.lbctl(&args).await.expect(0).stdout
}

/// Why a command was refused.
async fn refusal(cluster: &Cluster, code: i32, line: &str) -> String {
    let args: Vec<&str> = line.split_whitespace().collect();
    cluster.lbctl(&args).await.expect(code).stderr
}

async fn ask(proxy: SocketAddr, host: &str, target: &str) -> Response {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    exchange(proxy, "GET", request).await.unwrap()
}

#[tokio::test]
async fn the_most_specific_route_wins_and_the_explanation_agrees() {
    let default = Backend::saying("default");
    let cluster = one_proxy(&[&default]).await;
    let mut backends = Vec::new();
    for pool in ["api", "one", "shop", "tenants"] {
        backends.push(add_pool(&cluster, pool).await);
    }
    for line in [
        "add-route api --path-prefix /api --pool api",
        "add-route one --path /api/one --pool one",
        "add-route shop --host shop.example.com --path-prefix /cart --pool shop",
        "add-route tenants --host *.example.com --pool tenants",
    ] {
        let said = lbctl(&cluster, line).await;
        assert!(said.contains("applied 1/1 proxies"), "{said}");
    }
    for (host, target, pool) in [
        ("anybody", "/", "default"),
        ("anybody", "/apis", "default"),
        ("anybody", "/api/", "api"),
        ("anybody", "/api/one?x=/cart", "one"),
        ("anybody", "/api/one/more", "api"),
        ("SHOP.example.com:8080", "/cart/7", "shop"),
        // The host's own routes have no such path: the wildcard has.
        ("shop.example.com", "/api", "tenants"),
        ("a.b.example.com", "/cart", "tenants"),
        ("example.com", "/cart", "default"),
    ] {
        assert_eq!(ask(cluster.address(), host, target).await.text(), pool, "{host} {target}");
        let url = format!("http://{host}{target}");
        let explained = cluster.lbctl(&["explain-route", "GET", &url, "-o", "json"]).await;
        let explained = explained.expect(0).json();
        assert_eq!(explained["pools"][0]["pool"], pool, "{url}: {explained}");
        assert_eq!(explained["not_taken"].as_array().unwrap().len(), 4, "{explained}");
    }
    let table = lbctl(&cluster, "get routes").await;
    assert!(table.contains("*.example.com") && table.contains("/cart/..."), "{table}");
}

#[tokio::test]
async fn shares_are_exact_over_workers_and_connections() {
    let default = Backend::saying("default");
    let cluster = one_proxy(&[&default]).await;
    let _canary = add_pool(&cluster, "canary").await;
    let said = lbctl(&cluster, "set-route default --pool default=90 --pool canary=10").await;
    assert!(said.contains("pool default -> default=90,canary=10"), "{said}");
    let mut bodies: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..100 {
        *bodies.entry(get(cluster.address(), "/").await.text()).or_default() += 1;
    }
    assert_eq!(bodies, [("canary".to_owned(), 10), ("default".to_owned(), 90)].into());
    // A change elsewhere neither begins the cycle anew nor costs anybody a turn.
    lbctl(&cluster, "add-route other --host other.example --pool canary").await;
    let mut after = 0;
    for _ in 0..50 {
        after += usize::from(get(cluster.address(), "/").await.text() == "canary");
    }
    assert_eq!(after, 5);
    let page = lbctl(&cluster, "describe route default").await;
    assert!(page.contains("default=90,canary=10"), "{page}");
    let json = cluster.lbctl(&["get", "route", "default", "-o", "json"]).await.expect(0).json();
    assert_eq!(
        (&json["pools"][1]["pool"], &json["pools"][1]["percent"]),
        (&"canary".into(), &10.0.into())
    );
}

#[tokio::test]
async fn traffic_moves_from_blue_to_green_without_a_failed_request() {
    let blue = Backend::saying("blue");
    let cluster = one_proxy(&[&blue]).await;
    let _green = add_pool(&cluster, "green").await;
    let load = Load::start(&cluster.addresses(), 8);
    load.answered_by("blue").await;
    lbctl(&cluster, "set-route default --pool default=95 --pool green=5").await;
    load.answered_by("green").await;
    lbctl(&cluster, "set-route default --pool default=50 --pool green=50").await;
    load.answered(50).await;
    lbctl(&cluster, "add-route extra --path-prefix /extra --pool green").await;
    lbctl(&cluster, "set-route default --pool default=0 --pool green=100").await;
    // Every client's next request begins after the change was applied.
    load.answered(16).await;
    let before = load.bodies()["blue"];
    load.answered(50).await;
    assert_eq!(load.bodies()["blue"], before, "weight 0 gets nothing");
    lbctl(&cluster, "set-route default --pool green").await;
    lbctl(&cluster, "remove-route extra").await;
    load.answered(50).await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn without_a_route_the_answer_says_what_was_looked_for() {
    let default = Backend::saying("default");
    let cluster = one_proxy(&[&default]).await;
    lbctl(&cluster, "set-route default --host known.example").await;
    let answer = ask(cluster.address(), "other.example:80", "/<script>?token=secret").await;
    answer.expect(404, "no_route");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with(
            "no route of listener default matches host other.example and path /%3Cscript%3E; "
        ),
        "{message}"
    );
    assert!(message.contains("lbctl explain-route") && !message.contains("secret"), "{message}");
    let explained =
        cluster.lbctl(&["explain-route", "GET", "http://other.example/x"]).await.expect(7);
    assert!(explained.stdout.contains("takes no route: 404 no_route"), "{}", explained.stdout);
    assert!(explained.stdout.contains("the host differs"), "{}", explained.stdout);
    assert!(
        explained.stderr.contains("lbctl add-route NAME --host 'other.example' --pool POOL"),
        "{}",
        explained.stderr
    );
}

#[tokio::test]
async fn the_explanation_names_dead_pools_and_counts_the_many() {
    let cluster = Cluster::start(program(), 1).await;
    lbctl(&cluster, "add-pool empty").await;
    for number in 0..20 {
        let line = format!("add-route r{number} --no-wait --host h{number}.example --pool empty");
        lbctl(&cluster, &line).await;
    }
    lbctl(
        &cluster,
        "add-route cart --host h3.example --path-prefix /cart --pool default=3 --pool empty=1",
    )
    .await;
    let page =
        lbctl(&cluster, "explain-route GET http://127.0.0.1/cart/1 -H Host:h3.example").await;
    for part in [
        "GET /cart/1, host h3.example, on listener default",
        "takes route cart",
        "75%",
        "25%",
        "0 of 0 backends",
        "its path is less specific than that of cart",
        "its host is less specific than that of cart",
        "and 19 more: host differs",
        "next: 75% of the requests get 503",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("r4"), "{page}");
    let unknown = refusal(&cluster, 7, "explain-route GET /x --listener internal").await;
    assert!(unknown.contains("listener internal does not exist; known are default"), "{unknown}");
    let bad = refusal(&cluster, 2, "explain-route GET example.com").await;
    assert!(bad.contains("neither a URL nor a path"), "{bad}");
}

#[tokio::test]
async fn routes_that_make_no_sense_are_refused_with_a_reason() {
    let cluster = Cluster::start(program(), 1).await;
    lbctl(&cluster, "add-pool web").await;
    lbctl(&cluster, "add-route web --host a.example --pool default=1 --pool web=0").await;
    for (code, line, hint) in [
        (4, "add-route x --pool nowhere", "known are default, web"),
        (4, "add-route x --pool web --listener nowhere", "known are default"),
        (4, "add-route x --pool web --host a.example:80", "leave it out"),
        (4, "add-route x --pool web --path-prefix api", "must begin with '/'"),
        (4, "add-route x --pool web=0", "weight above 0"),
        (4, "add-route x --pool web=1 --pool web=2", "named twice"),
        (5, "add-route x --pool web --host A.EXAMPLE", "route web matches the same"),
        (5, "add-route web --pool web --host b.example", "exists already"),
        (5, "set-route web --host *", "route default matches the same"),
        (4, "remove-pool web", "route web"),
        (4, "remove-listener default", "route default"),
        (7, "remove-route nothing", "known are default, web"),
        (2, "add-route x --host b.example", "--pool"),
        (2, "add-route x --pool web=257", "0 to 256"),
        (2, "add-route x --pool web --path /a --path-prefix /b", "cannot be used with"),
        (2, "set-route web", "nothing to change"),
    ] {
        let before = cluster.api.revision().await;
        let told = refusal(&cluster, code, line).await;
        assert!(told.contains(hint), "{line}: {told}");
        assert_eq!(cluster.api.revision().await, before, "{line}");
    }
}

/// A proxy accepts at the address of a listener before anybody has added that, while it
/// changes, and after it was removed; without a restart, on the same connection.
#[tokio::test]
async fn listeners_come_change_and_go_while_a_proxy_runs() {
    let args = ["--listen=internal=127.0.0.1:0"];
    let cluster = Cluster::start_with(program(), 1, &args).await;
    let default = Backend::saying("default");
    cluster.add_backends(&[default.address()]).await;
    let _admin = add_pool(&cluster, "admin").await;
    let process = cluster.proxy(0).process();
    process.complaint("lbctl add-listener internal").await;
    let internal = process.listening().await.address("internal");
    let mut client = Client::connect(internal).await;
    let mut ask = async |status: u16, hint: &str| {
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{}", response.text());
        assert!(response.text().contains(hint), "{hint}: {}", response.text());
    };
    ask(503, "listener internal is not configured: add it with lbctl add-listener internal").await;
    lbctl(&cluster, "add-listener internal").await;
    ask(404, "no route of listener internal matches host a and path /x").await;
    lbctl(&cluster, "add-route admin --listener internal --pool admin").await;
    ask(200, "admin").await;
    assert_eq!(get(cluster.address(), "/x").await.text(), "default", "the other one is as it was");
    let page = lbctl(&cluster, "explain-route GET http://a/x").await;
    assert!(page.contains("it is for listener internal"), "{page}");
    let page = lbctl(&cluster, "explain-route GET http://a/x --listener internal").await;
    assert!(page.contains("takes route admin"), "{page}");

    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nConnection: close\r\n\r\n";
    let post = format!("{post}{}", "x".repeat(100));
    assert_eq!(exchange(internal, "POST", &post).await.unwrap().status, 200);
    lbctl(&cluster, "set-listener internal --max-body-bytes 10").await;
    assert_eq!(exchange(internal, "POST", &post).await.unwrap().status, 413);
    assert_eq!(exchange(cluster.address(), "POST", &post).await.unwrap().status, 200);

    lbctl(&cluster, "remove-route admin").await;
    ask(404, "no_route").await;
    lbctl(&cluster, "remove-listener internal").await;
    ask(503, "config_missing").await;
    assert_eq!(get(cluster.address(), "/x").await.text(), "default");
}

/// A backend that is the proxy itself gets no request round for ever; from one listener to another
/// is no circle.
#[tokio::test]
async fn a_request_that_comes_back_again_and_again_is_answered() {
    let default = Backend::saying("default");
    let cluster = one_proxy(&[&default]).await;
    let own = cluster.address();
    lbctl(&cluster, "add-pool circle --health none").await;
    lbctl(&cluster, &format!("add-backend {own} --pool circle --id circle-1")).await;
    lbctl(&cluster, "add-route circle --path-prefix /circle --pool circle").await;
    let answer = get(own, "/circle").await;
    answer.expect(508, "loop_detected");
    assert_eq!(get(own, "/").await.text(), "default");
    let passed = cluster.lbctl(&["check"]).await.stdout;
    assert!(passed.contains("circle-1"), "{passed}");
    assert!(passed.contains("is listener default of proxy"), "{passed}");

    // The same server behind the fleet twice: it is told so, and asked.
    lbctl(&cluster, &format!("set-backend circle-1 --address {}", default.address())).await;
    cluster.settled().await;
    let mark = default.recorded()[0]
        .request
        .field("CDN-Loop")
        .expect("every request is marked")
        .to_owned();
    let twice = format!(
        "GET /circle HTTP/1.1\r\nHost: a\r\nCDN-Loop: cdn, {mark}, {mark}, {mark}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(exchange(own, "GET", twice).await.unwrap().text(), "default");
}

/// What leads nowhere is done as asked, and told: by whoever does it, and from then on by `check`.
#[tokio::test]
async fn whoever_leads_requests_nowhere_is_warned() {
    let backend = Backend::saying("default");
    let cluster = one_proxy(&[&backend]).await;
    let warnings = async |line: &str| {
        let args: Vec<&str> = line.split_whitespace().collect();
        cluster.lbctl(&args).await.expect(0).stderr
    };
    assert_eq!(warnings("add-pool empty").await, "");
    assert_eq!(warnings("add-route more --path-prefix /more --pool default").await, "");
    let told = warnings("set-route default --pool empty --dry-run").await;
    assert!(told.contains("route default goes to pool empty, which has no backend"), "{told}");
    let told = warnings("set-route default --pool empty").await;
    assert!(told.contains("route default goes to pool empty, which has no backend"), "{told}");
    assert_eq!(warnings("set-route default --pool default").await, "");

    assert_eq!(warnings("remove-route more").await, "");
    let told = warnings("remove-route default").await;
    assert!(told.contains("warning: listener default has no route any more"), "{told}");
    let check = cluster.lbctl(&["check"]).await.expect(1).stdout;
    assert!(check.contains("listener default has no route: everything is answered 404"), "{check}");
    let status = cluster.lbctl(&["status"]).await.stdout;
    assert!(status.contains("! listener default has no route"), "{status}");

    // Nothing leads to the pool any more: nobody misses its last backend.
    let told = warnings("remove-backend backend1").await;
    assert!(!told.contains("serves"), "{told}");
}
