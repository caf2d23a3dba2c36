//! A small fleet for the length of one command: a control plane, one proxy, and three demo
//! backends unless others are given. All ports are free ones, and of what the children
//! say only errors are shown.

use std::{net::SocketAddr, time::Duration};

use lb_core::model::Address;

use super::{
    CALL_TIMEOUT, data_dir::DataDir, household::Household, plan::ProxyPlan, printer::Printer,
    role::Role, setup,
};
use crate::{
    args::{Dev, OutputFormat},
    client::Client,
    command::Session,
    exit::{Exit, Failure},
    output::Screen,
    signal::StopSignals,
    view::BackendView,
};

/// What a demo backend takes for a request: requests that overlap are what some algorithms go by.
const DELAY: Duration = Duration::from_millis(5);

/// A running fleet.
#[derive(Debug)]
pub(crate) struct Trial {
    household: Household,
    printer: Printer,
    pub(crate) session: Session,
    /// Where the proxy takes traffic.
    pub(crate) traffic: SocketAddr,
    _data_dir: DataDir,
}

impl Trial {
    /// Starts it, and returns when it serves from these backends.
    pub(crate) async fn start(backends: &[Address]) -> Result<Self, Failure> {
        let data_dir = DataDir::open(None)?;
        let printer = Printer::of_errors();
        let household = Household::new(printer.clone());
        match gather(&household, backends, &data_dir).await {
            Ok((session, traffic)) => {
                Ok(Self { household, printer, session, traffic, _data_dir: data_dir })
            }
            Err(failure) => {
                end(household, printer).await;
                Err(failure)
            }
        }
    }

    /// The backends, in order.
    pub(crate) async fn backends(&self) -> Result<Vec<BackendView>, Failure> {
        Ok(setup::list_backends(&self.session.client).await?.0)
    }

    /// Stops everything.
    pub(crate) async fn stop(self) {
        end(self.household, self.printer).await;
    }
}

async fn gather(
    household: &Household,
    backends: &[Address],
    data_dir: &DataDir,
) -> Result<(Session, SocketAddr), Failure> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let args = Dev {
        config: None,
        host: any.ip(),
        port: 0,
        algorithm: None,
        replicas: 1,
        workers: None,
        backends: backends.to_vec(),
        health_interval: None,
        request_timeout: None,
        session_timeout: None,
        data_dir: None,
        access_log: "off".to_owned(),
        debug: false,
    };
    let control = household.admit(Role::control_plane(any, any, data_dir.path(), &args)).await?;
    let mut demos = Vec::new();
    for number in 1..=if backends.is_empty() { 3 } else { 0 } {
        demos.push(household.admit(Role::demo_backend(number, 0).taking(DELAY)).await?);
    }
    let server = format!("http://{}", control.value("grpc"));
    let plan = ProxyPlan { id: "proxy-1".to_owned(), traffic: any, admin: any };
    let proxy = household.admit(Role::proxy(plan, &server, data_dir.path(), &args)).await?;
    let client = Client::connect(&[server], CALL_TIMEOUT).await?;
    let session = Session { client, screen: Screen::new(OutputFormat::Table) };
    let demos: Vec<&str> = demos.iter().map(|demo| demo.value("backend")).collect();
    setup::configure(&session.client, &args, &demos).await?;
    let problems = setup::await_serving(&session, 1, false).await?;
    if !problems.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            format!("the fleet of the test does not serve: {}", problems.join("; ")),
        ));
    }
    let traffic = proxy.value("default").parse().map_err(|_| {
        Failure::new(
            Exit::Failed,
            "the proxy does not say where it listens; its own messages are above",
        )
    })?;
    Ok((session, traffic))
}

async fn end(household: Household, printer: Printer) {
    match StopSignals::catch() {
        Ok(mut signals) => household.stop(&mut signals).await,
        // Children end by themselves when this process does.
        Err(_) => drop(household),
    }
    printer.finish().await;
}
