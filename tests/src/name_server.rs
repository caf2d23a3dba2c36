//! A name server on loopback that answers what a test tells it, over UDP.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, rdata::SRV},
};
use tokio::{net::UdpSocket, sync::watch, task::JoinHandle, time::timeout};

use crate::PATIENCE;

/// How a name is answered.
#[derive(Clone, Debug)]
enum Reply {
    /// With those of these records that were asked for.
    Records(Vec<RData>, u32),
    /// With an error.
    Error(ResponseCode),
    /// Not at all.
    Silence,
}

/// The name server, until it is dropped. What it was not told does not exist.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    questions: watch::Sender<HashMap<String, u64>>,
    task: JoinHandle<()>,
}

/// A record of a service: priority, weight, port and target.
pub type Service<'a> = (u16, u16, u16, &'a str);

impl NameServer {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = socket.local_addr().expect("a bound socket has an address");
        let replies: Arc<Mutex<HashMap<String, Reply>>> = Arc::default();
        let questions = watch::Sender::default();
        let task = tokio::spawn(serve(socket, Arc::clone(&replies), questions.clone()));
        Self { address, replies, questions, task }
    }

    /// Where it is asked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the name has these addresses.
    pub fn addresses(&self, name: &str, addresses: &[IpAddr], ttl: u32) {
        let records = addresses.iter().map(|ip| RData::from(*ip)).collect();
        self.set(name, Reply::Records(records, ttl));
    }

    /// From now on the service has these targets.
    pub fn services(&self, name: &str, targets: &[Service<'_>], ttl: u32) {
        let record = |(priority, weight, port, target): &Service<'_>| {
            let target = Name::from_ascii(target).expect("the target is a name");
            RData::SRV(SRV::new(*priority, *weight, *port, target))
        };
        self.set(name, Reply::Records(targets.iter().map(record).collect(), ttl));
    }

    /// From now on the name is answered SERVFAIL.
    pub fn fail(&self, name: &str) {
        self.set(name, Reply::Error(ResponseCode::ServFail));
    }

    /// From now on the name does not exist.
    pub fn forget(&self, name: &str) {
        self.set(name, Reply::Error(ResponseCode::NXDomain));
    }

    /// From now on questions about the name are not answered.
    pub fn ignore(&self, name: &str) {
        self.set(name, Reply::Silence);
    }

    /// Waits for this many more questions about a name.
    pub async fn asked(&self, name: &str, more: u64) {
        let count = |questions: &HashMap<String, u64>| questions.get(name).copied().unwrap_or(0);
        let before = count(&self.questions.borrow());
        let mut receiver = self.questions.subscribe();
        let reached = timeout(PATIENCE, receiver.wait_for(|all| count(all) >= before + more)).await;
        assert!(reached.is_ok(), "{name} was not asked for: {:?}", self.questions.borrow());
    }

    fn set(&self, name: &str, reply: Reply) {
        self.replies.lock().expect("no holder panics").insert(name.to_owned(), reply);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    socket: UdpSocket,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    questions: watch::Sender<HashMap<String, u64>>,
) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let question = Message::from_vec(&buffer[..length]).expect("the question is well formed");
        let query = question.queries.first().expect("there is a question").clone();
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        questions.send_modify(|all| *all.entry(name.clone()).or_default() += 1);
        let reply = replies.lock().expect("no holder panics").get(&name).cloned();
        let (id, op_code) = (question.metadata.id, question.metadata.op_code);
        let mut answer = Message::response(id, op_code);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match reply {
            Some(Reply::Silence) => continue,
            Some(Reply::Error(code)) => answer.metadata.response_code = code,
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(Reply::Records(records, ttl)) => {
                let wanted = |data: &RData| data.record_type() == query.query_type();
                for data in records.into_iter().filter(wanted) {
                    answer.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
                }
            }
        }
        let bytes = answer.to_vec().expect("an answer can be written");
        // Whoever asked may be gone.
        socket.send_to(&bytes, peer).await.ok();
    }
}
