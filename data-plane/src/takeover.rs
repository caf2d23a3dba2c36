//! Hands the listening sockets over to a new process of the same proxy.
//!
//! A socket that is closed resets the connections that wait in its queue, so the new
//! process does not open the addresses anew: it is given the very sockets, and for a
//! moment both processes accept on them. The data directory's lock passes on with them.
//!
//! ```text
//!  new                                     old
//!   |  connects to takeover.sock            |  keeps its newest configuration on disk
//!   |  <---- who it is, and descriptors ----|
//!   |  serves                               |
//!   |  ----- serving ---------------------> |  accepts no more, follows no more
//!   |  <---- retired -----------------------|  lets its connections end, and exits
//!   |  follows the control plane            |
//! ```
//!
//! A new process that fails on the way changes nothing for the old one.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen as listen_on, recvmsg, sendmsg, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{args::Listen, error::RunError, listen};

/// Names the conversation; another one is refused.
const PROTOCOL: u32 = 1;
/// Descriptors in one message; the system takes 253.
const DESCRIPTORS_MAX: usize = 128;
/// The longest message: names and addresses.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the old process says of itself, before the descriptors.
#[derive(Debug, Deserialize, Serialize)]
struct Introduction {
    protocol: u32,
    id: String,
    instance: String,
    /// The name of each listener and its number of sockets, in the order in which these
    /// follow, behind the lock and the admin socket.
    listeners: Vec<(String, usize)>,
}

/// What can be handed over: sockets of this process, once more.
#[derive(Debug)]
pub(crate) struct Estate {
    pub(crate) id: String,
    pub(crate) instance: String,
    pub(crate) listeners: Vec<(Listen, Vec<TcpListener>)>,
    pub(crate) admin: OwnedFd,
    pub(crate) lock: File,
}

/// What was handed over.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) id: String,
    /// Of the process that is replaced.
    pub(crate) instance: String,
    listeners: Vec<(String, Vec<TcpListener>)>,
    pub(crate) admin: TcpListener,
    pub(crate) lock: File,
    pub(crate) old: OwnedFd,
}

/// The old process is asked to retire; it answers through `retired`.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) retired: mpsc::Sender<()>,
}

fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("takeover.sock")
}

/// Offers the estate to whoever asks, until somebody has taken it. `prepare` is called
/// before, and `successors` is told when the new process serves.
pub(crate) fn offer(
    data_dir: &Path,
    estate: Arc<Mutex<Option<Estate>>>,
    prepare: impl Fn() + Send + 'static,
    successors: tokio::sync::mpsc::Sender<Successor>,
) -> io::Result<()> {
    let path = socket_path(data_dir);
    // Of a process that ended without clearing up; the directory's lock is ours.
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = open_socket()?;
    bind(&listener, &SocketAddrUnix::new(&path)?)?;
    listen_on(&listener, 1)?;
    thread::Builder::new().name("takeover".to_owned()).spawn(move || {
        loop {
            let successor = match accept_with(&listener, SocketFlags::CLOEXEC) {
                Ok(successor) => successor,
                Err(error) => {
                    warn!(%error, "a new process cannot be heard; trying again");
                    thread::park_timeout(Duration::from_millis(100));
                    continue;
                }
            };
            info!("a new process asks to take over");
            prepare();
            match hand_over(&successor, &estate, &successors) {
                Ok(()) => return,
                Err(error) => warn!(%error, "the take-over failed; serving goes on here"),
            }
        }
    })?;
    Ok(())
}

fn hand_over(
    successor: &OwnedFd,
    estate: &Mutex<Option<Estate>>,
    successors: &tokio::sync::mpsc::Sender<Successor>,
) -> io::Result<()> {
    be_patient(successor)?;
    tell(successor, estate)?;
    expect(successor, "serving")?;
    let (retired, is_retired) = mpsc::channel();
    if successors.blocking_send(Successor { retired }).is_err() {
        return Err(io::Error::other("this process is stopping"));
    }
    // If it takes long, the new process goes on without a word.
    is_retired.recv_timeout(PATIENCE).ok();
    send(successor, b"retired", &[])
}

/// Sends everything that this process has.
fn tell(successor: &OwnedFd, estate: &Mutex<Option<Estate>>) -> io::Result<()> {
    let estate = estate.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(estate) = &*estate else {
        return Err(io::Error::other("this process is stopping"));
    };
    let listeners =
        estate.listeners.iter().map(|(listen, sockets)| (listen.name.to_string(), sockets.len()));
    let introduction = Introduction {
        protocol: PROTOCOL,
        id: estate.id.clone(),
        instance: estate.instance.clone(),
        listeners: listeners.collect(),
    };
    let sockets = estate.listeners.iter().flat_map(|(_, sockets)| sockets.iter().map(AsFd::as_fd));
    let descriptors: Vec<BorrowedFd<'_>> =
        [estate.lock.as_fd(), estate.admin.as_fd()].into_iter().chain(sockets).collect();
    send(successor, &serde_json::to_vec(&introduction)?, &[])?;
    for some in descriptors.chunks(DESCRIPTORS_MAX) {
        send(successor, b"descriptors", some)?;
    }
    Ok(())
}

/// Asks the process that runs in this data directory for what it has; `None` when there
/// is no such process.
pub(crate) fn ask(data_dir: &Path) -> Result<Option<Inheritance>, RunError> {
    let path = socket_path(data_dir);
    let failed = |error: io::Error| RunError::TakeOver { path: path.clone(), source: error };
    let old = open_socket().map_err(failed)?;
    let address = SocketAddrUnix::new(&path).map_err(|_| RunError::DataDir {
        path: data_dir.to_owned(),
        problem: "its path is too long for --takeover: a socket's may have 107 bytes. Name a \
                  shorter one with --data-dir"
            .to_owned(),
    })?;
    be_patient(&old).map_err(failed)?;
    match connect(&old, &address) {
        Ok(()) => inherit(old).map(Some).map_err(failed),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

fn inherit(old: OwnedFd) -> io::Result<Inheritance> {
    let (message, _) = receive(&old)?;
    let introduction: Introduction = serde_json::from_slice(&message)?;
    if introduction.protocol != PROTOCOL {
        return Err(io::Error::other(format!(
            "it speaks version {} of the take-over, this one {PROTOCOL}",
            introduction.protocol
        )));
    }
    let sockets: usize = introduction.listeners.iter().map(|(_, count)| count).sum();
    let mut descriptors = Vec::new();
    while descriptors.len() < sockets + 2 {
        let (_, more) = receive(&old)?;
        if more.is_empty() {
            return Err(io::Error::other("descriptors are missing; is the limit too low?"));
        }
        descriptors.extend(more);
    }
    let mut descriptors = descriptors.into_iter();
    let (Some(lock), Some(admin)) = (descriptors.next(), descriptors.next()) else {
        return Err(io::Error::other("descriptors are missing"));
    };
    let listeners = introduction.listeners.into_iter().map(|(name, count)| {
        (name, descriptors.by_ref().take(count).map(TcpListener::from).collect())
    });
    Ok(Inheritance {
        id: introduction.id,
        instance: introduction.instance,
        listeners: listeners.collect(),
        admin: admin.into(),
        lock: lock.into(),
        old,
    })
}

/// Tells the old process that this one serves, and waits until it has retired.
pub(crate) fn relieve(old: &OwnedFd) -> io::Result<()> {
    send(old, b"serving", &[])?;
    expect(old, "retired")
}

impl Inheritance {
    /// Names and addresses of the listeners that nobody took.
    pub(crate) fn untaken(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.listeners.iter().filter_map(|(name, sockets)| {
            Some((name.as_str(), sockets.first()?.local_addr().ok()?))
        })
    }

    /// Takes the sockets of a listener out, if they are bound where it shall be. Those that
    /// nobody takes are closed with the rest.
    pub(crate) fn take(&mut self, listen: &Listen) -> Option<Vec<TcpListener>> {
        let (_, sockets) =
            self.listeners.iter_mut().find(|(name, _)| *name == listen.name.as_str())?;
        let bound = sockets.first()?.local_addr().ok()?;
        listen::is_same(listen.address, bound).then(|| std::mem::take(sockets))
    }
}

fn open_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn be_patient(socket: &OwnedFd) -> io::Result<()> {
    for which in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(socket, which, Some(PATIENCE))?;
    }
    Ok(())
}

fn send(socket: &OwnedFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits, "the space is for as many as are sent");
    }
    sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut message = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [IoSliceMut::new(&mut message)];
    let received = recvmsg(socket, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptors = ancillary
        .drain()
        .filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    message.truncate(received.bytes);
    Ok((message, descriptors))
}

fn expect(socket: &OwnedFd, word: &str) -> io::Result<()> {
    let (message, _) = receive(socket)?;
    if message == word.as_bytes() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&message).chars().take(40).collect::<String>();
        Err(io::Error::other(format!("the other process said {said:?} instead of {word:?}")))
    }
}

#[cfg(test)]
mod tests {
    use lb_core::model::ListenerName;

    use super::*;

    fn estate(listener: &TcpListener, directory: &Path) -> Estate {
        let listen = Listen {
            name: ListenerName::default_listener(),
            address: listener.local_addr().unwrap(),
        };
        let sockets = vec![listener.try_clone().unwrap()];
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        Estate {
            id: "p1".to_owned(),
            instance: "old".to_owned(),
            listeners: vec![(listen, sockets)],
            admin: admin.into(),
            lock: File::create(directory.join("lock")).unwrap(),
        }
    }

    #[test]
    fn a_new_process_gets_the_very_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (sender, mut successors) = tokio::sync::mpsc::channel(1);
        let path = directory.path();
        let estate = Arc::new(Mutex::new(Some(estate(&listener, path))));
        offer(path, estate, || {}, sender).unwrap();

        // One that asks and dies takes nothing away.
        drop(ask(path).unwrap().unwrap());
        let mut inheritance = ask(path).unwrap().unwrap();
        assert_eq!((inheritance.id.as_str(), inheritance.instance.as_str()), ("p1", "old"));
        let address = listener.local_addr().unwrap();
        let listen = |name: &str, port| Listen {
            name: ListenerName::new(name).unwrap(),
            address: SocketAddr::new(address.ip(), port),
        };
        assert!(inheritance.take(&listen("other", 0)).is_none());
        assert!(inheritance.take(&listen("default", address.port() ^ 1)).is_none());
        let sockets = inheritance.take(&listen("default", 0)).unwrap();
        assert_eq!(sockets[0].local_addr().unwrap(), address);

        let retiring = thread::spawn(move || {
            successors.blocking_recv().unwrap().retired.send(()).unwrap();
        });
        relieve(&inheritance.old).unwrap();
        retiring.join().unwrap();
    }

    #[test]
    fn without_an_old_process_there_is_nothing_to_take() {
        let directory = tempfile::tempdir().unwrap();
        assert!(ask(directory.path()).unwrap().is_none());
    }
}
