//! A control plane that one may not use: exit code 8, whoever refuses.

use std::{
    convert::Infallible,
    fs,
    future::{Ready, ready},
    os::unix::fs::PermissionsExt as _,
    task::{Context, Poll},
};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::Server,
};

use crate::program;

/// Lets nobody in, as a gateway before a control plane may.
#[derive(Clone)]
struct Closed;

impl NamedService for Closed {
    const NAME: &'static str = "lb.v1.Fleet";
}

impl Service<http::Request<Body>> for Closed {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(
            Ok(Status::permission_denied("the role viewer may not look at the fleet").into_http()),
        )
    }
}

#[tokio::test]
async fn whoever_is_not_let_in_exits_with_8() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let serving =
        Server::builder().add_service(Closed).serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serving);
    for command in [&["get", "proxies"][..], &["status"], &["check"], &["forget-proxy", "p"]] {
        let args = [&["--server", &server], command].concat();
        let refused = program().run(&args).await.expect(8);
        let told = refused.stdout + &refused.stderr;
        assert!(told.contains("the role viewer may not look at the fleet"), "{told}");
    }
    serving.abort();
}

/// For a user who may do everything there is nothing to be refused.
#[tokio::test]
async fn a_socket_that_may_not_be_opened_is_no_control_plane_that_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("grpc.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        eprintln!("this user may open any socket, so that none is refused");
        return;
    }
    let server = format!("unix:{}", socket.display());
    let refused = program().run(&["--server", &server, "status"]).await.expect(8).stderr;
    assert!(refused.contains("no permission to connect"), "{refused}");
}
