//! What the fleet does about backends that fail.
//!
//! One proxy sees a part of the traffic; what it learns alone it learns late, and N
//! proxies that each learn it by failing cost N times as many requests. So the control
//! plane sums up what all of them report and decides once; a proxy acts alone only on
//! what it sees itself and nobody else can know, and while the control plane is away.
//!
//! | module | decides | where |
//! |---|---|---|
//! | [`sightings`] | what the proxies see of one backend, and whose word is left out | control plane |
//! | [`hearing`] | what is known by when of what each proxy saw | control plane |
//! | [`breaker`] | when a backend that fails gets no more requests, and gets them again | control plane |
//! | [`probe`] | the one request that tests a backend, as the proxy sees it | proxy |
//! | [`local`] | what a proxy avoids by itself | proxy |
//! | [`outlier`] | which backends differ from the rest of their pool | control plane |
//! | [`ejection`] | how many backends may be out at once | control plane |
//! | [`retry`] | whether a request is sent once more, and when | proxy |
//! | [`retry_budget`] | how many retries a proxy may send | proxy |
//! | [`slow_start`] | how a backend that joins is led up to its share | both |
//! | [`concurrency`] | how many requests a pool takes at once | control plane |
//!
//! Policies are [`crate::model::ResiliencePolicy`]'s parts, and [`concurrency::Policy`].

pub mod breaker;
pub mod concurrency;
pub mod ejection;
pub mod hearing;
pub mod local;
pub mod outlier;
pub mod probe;
pub mod retry;
pub mod retry_budget;
pub mod sightings;
pub mod slow_start;
mod window;
