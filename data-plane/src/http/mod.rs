//! HTTP on a client's connection: one request after the other.
//!
//! | module | does |
//! |---|---|
//! | [`stream`] | what it needs of a connection, whatever that runs over |
//! | [`connection`] | waits for requests without holding buffers |
//! | [`keep_alive`] | whether one stays open after a request |
//! | [`exchange`] | answers the requests of a connection: takes each, and picks backends for it |
//! | [`forward`] | sends one to a backend, and to another if need be |
//! | [`attempts`] | what a request has been through so far, and whether it goes on to another backend |
//! | [`prepare`] | reads, routes and rewrites a request's head, without I/O |
//! | [`limited`] | asks the limits of a request, and says what came of it |
//! | [`affinity`] | keeps clients with their backends |
//! | [`fallback`] | finds the pool that serves, which may be another than its own |
//! | [`admit`] | takes slots where there are so many, or waits in line |
//! | [`mod@read`] | waits for a request and takes it from the connection |
//! | [`converse`] | sends a request to one backend, up to the head of its response |
//! | [`response_head`] | reads that head, and rewrites it |
//! | [`timing`] | how long an attempt may take |
//! | [`interim`] | tells clients what comes before the response |
//! | [`presence`] | looks whether the client is still there meanwhile |
//! | [`deliver`] | brings the response to the client, while the upload goes on |
//! | [`management`] | lets requests for the control plane through, or not |
//! | [`failure`] | how an attempt can end, and what clients are told of it |
//! | [`relay`] | moves a body from one connection to another |
//! | [`splice`] | moves a long one without copying it |
//! | [`switch`] | tells a client that its backend changes to another protocol |
//! | [`tunnel`] | moves bytes both ways after a change of protocol |
//! | [`answer`] | gives the proxy's own answers |
//! | [`linger`] | ends connections so that answers arrive |
//! | [`respond`] | what they look like |
//! | [`answering`] | counts them, and those of backends, by route |
//! | [`record`] | what the access log says of a request |

mod admit;
mod affinity;
mod answer;
mod answering;
mod attempts;
mod connection;
mod converse;
mod deliver;
mod exchange;
mod failure;
mod fallback;
mod forward;
mod interim;
mod keep_alive;
mod limited;
mod linger;
mod management;
mod prepare;
mod presence;
mod read;
pub(crate) mod record;
mod relay;
pub(crate) mod respond;
mod response_head;
mod splice;
mod stream;
mod switch;
mod timing;
mod tunnel;

pub(crate) use self::connection::{serve, turn_away};
