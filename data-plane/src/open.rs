//! Everything that is opened before the first worker runs: addresses, and the data
//! directory. Or it is taken over from the process that had it.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    thread,
};

use lb_core::model::{InstanceId, ListenerName, ProxyId};
use tracing::{info, warn};

use crate::{
    args::{Args, Listen},
    data_dir::DataDir,
    error::RunError,
    listen,
    sync::Introduction,
    takeover::{self, Estate, Inheritance},
};

/// Where `/livez` is unless told otherwise.
const ADMIN_PORT: u16 = 9500;

/// What was opened.
pub(crate) struct Opened {
    pub(crate) data_dir: DataDir,
    pub(crate) id: ProxyId,
    pub(crate) listens: Vec<(Listen, Vec<TcpListener>)>,
    pub(crate) admin: TcpListener,
    pub(crate) workers: usize,
    /// The process that had all this, and its instance.
    pub(crate) old: Option<(OwnedFd, String)>,
}

impl Opened {
    /// Opens what the flags name.
    pub(crate) fn new(args: &Args) -> Result<Self, RunError> {
        let bad = |invalid: lb_core::model::Invalid| RunError::Usage(format!("--id: {invalid}"));
        let wanted = args.id.as_deref().map(ProxyId::new).transpose().map_err(bad)?;
        let workers = match args.workers {
            Some(workers) => usize::from(workers),
            None => thread::available_parallelism().map_or(1, usize::from),
        };
        let path = args.data_dir.clone().map_or_else(|| DataDir::default_path(wanted.as_ref()), Ok);
        let mut inheritance = match (&path, args.takeover) {
            (Ok(path), true) => take_over(path, wanted.as_ref())?,
            _ => None,
        };
        // The addresses before the directory: a taken port is the likelier mistake.
        let searched = path.as_ref().ok().filter(|_| args.takeover && inheritance.is_none());
        let in_vain = |error: RunError| match searched {
            Some(searched) => error.after_a_search_in(searched),
            None => error,
        };
        let listens = open_listeners(args, workers, inheritance.as_mut()).map_err(in_vain)?;
        let admin = open_admin(args.admin, inheritance.as_ref()).map_err(in_vain)?;
        let path = path?;
        let Some(inheritance) = inheritance else {
            let data_dir = DataDir::open(path)?;
            let id = data_dir.id(wanted)?;
            return Ok(Self { data_dir, id, listens, admin, workers, old: None });
        };
        let id = ProxyId::new(&inheritance.id).map_err(bad)?;
        let data_dir = DataDir::inherited(path, inheritance.lock);
        let old = Some((inheritance.old, inheritance.instance));
        Ok(Self { data_dir, id, listens, admin, workers, old })
    }

    /// The same once more, for a process that takes over some day.
    pub(crate) fn estate(&self, instance: &InstanceId) -> io::Result<Estate> {
        let copies = |(listen, sockets): &(Listen, Vec<TcpListener>)| {
            let sockets = sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
            Ok((listen.clone(), sockets))
        };
        Ok(Estate {
            id: self.id.to_string(),
            instance: instance.to_string(),
            listeners: self.listens.iter().map(copies).collect::<io::Result<_>>()?,
            admin: self.admin.try_clone()?.into(),
            lock: self.data_dir.lock()?,
        })
    }

    /// One line on stdout, for whoever started this and let it choose its ports.
    pub(crate) fn announce(&self) -> Result<(), RunError> {
        let mut line = format!("listening id={}", self.id);
        for (listen, _) in &self.listens {
            line.push_str(&format!(" {}={}", listen.name, listen.address));
        }
        line.push_str(&format!(" admin={}\n", self.admin.local_addr()?));
        let mut stdout = io::stdout();
        // Nobody may be reading.
        drop(stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()));
        info!("{}", line.trim_end());
        Ok(())
    }

    /// How this process introduces itself to control planes.
    pub(crate) fn introduction(
        &self,
        instance: InstanceId,
        writes_access_log: bool,
    ) -> Introduction {
        let addresses = self.listens.iter();
        Introduction {
            id: self.id.clone(),
            instance,
            replaces: self.old.as_ref().map(|(_, instance)| instance.clone()).unwrap_or_default(),
            listen_addresses: addresses
                .map(|(listen, _)| (listen.name.to_string(), listen.address.to_string()))
                .collect(),
            admin_address: self.admin.local_addr().map(|a| a.to_string()).unwrap_or_default(),
            workers: self.workers,
            writes_access_log,
        }
    }
}

fn take_over(path: &Path, wanted: Option<&ProxyId>) -> Result<Option<Inheritance>, RunError> {
    let inheritance = takeover::ask(path)?;
    match (&inheritance, wanted) {
        (None, _) => info!("there is no process to take over from; starting as usual"),
        (Some(old), Some(wanted)) if old.id != wanted.as_str() => {
            return Err(RunError::Usage(format!(
                "--takeover: the process in {} is proxy {}, not {wanted}; leave --id out, or name \
                 the directory of {wanted} with --data-dir",
                path.display(),
                old.id
            )));
        }
        (Some(old), _) => info!(id = old.id, instance = old.instance, "taking over"),
    }
    Ok(inheritance)
}

fn open_listeners(
    args: &Args,
    workers: usize,
    mut inheritance: Option<&mut Inheritance>,
) -> Result<Vec<(Listen, Vec<TcpListener>)>, RunError> {
    let default = Listen {
        name: ListenerName::default_listener(),
        address: SocketAddr::new(args.host, args.port),
    };
    let mut listens: Vec<(Listen, Vec<TcpListener>)> = Vec::new();
    for (listen, flag) in std::iter::once((&default, "--port"))
        .chain(args.listen.iter().map(|listen| (listen, "--listen")))
    {
        if listens.iter().any(|(other, _)| other.name == listen.name) {
            return Err(RunError::Usage(format!(
                "listener {} is given twice; --host and --port are those of `default`",
                listen.name
            )));
        }
        let inherited = inheritance.as_deref_mut().and_then(|old| old.take(listen));
        let (address, sockets) = match inherited {
            Some(sockets) => listen::with_inherited(sockets, workers, flag)?,
            None => listen::for_workers(listen.address, workers, flag)?,
        };
        listens.push((Listen { name: listen.name.clone(), address }, sockets));
    }
    for (name, address) in inheritance.iter().flat_map(|old| old.untaken()) {
        warn!(listener = name, %address, "the old process listens there and this one does not: clients are refused from now on");
    }
    Ok(listens)
}

fn open_admin(
    wanted: Option<SocketAddr>,
    inheritance: Option<&Inheritance>,
) -> Result<TcpListener, RunError> {
    if let Some(old) = inheritance {
        let admin = old.admin.try_clone()?;
        let bound = admin.local_addr()?;
        if wanted.is_none_or(|wanted| listen::is_same(wanted, bound)) {
            return Ok(admin);
        }
    }
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let address = wanted.unwrap_or_else(|| loopback(ADMIN_PORT));
    let bound = match listen::for_workers(address, 1, "--admin") {
        // Several proxies on one machine are no mistake.
        Err(RunError::AddressInUse { .. }) if wanted.is_none() => {
            listen::for_workers(loopback(0), 1, "--admin")
        }
        bound => bound,
    };
    let (_, mut sockets) = bound?;
    Ok(sockets.pop().ok_or_else(|| io::Error::other("no admin socket"))?)
}
