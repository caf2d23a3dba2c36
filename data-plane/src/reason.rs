//! The vocabulary of reasons: why a request was not answered by a backend.
//!
//! The same words stand in the answer's body, in the access log and in the statistics,
//! so that a number can be followed to a line and from there to a client. A reason is
//! also the index of its counter, so that counting needs no map.

/// Declares the reasons with their names. One list makes all of them, so that a reason cannot
/// be left out of [`Reason::ALL`] and thereby out of the counts.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why the proxy answered by itself, or why an exchange did not end well.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, each at the index of its counter.
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// As it is spelled everywhere.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// 404: no route matches host and path.
    NoRoute = "no_route",
    /// 503: no backend of the pool may serve.
    NoHealthyBackend = "no_healthy_backend",
    /// A backend that is not well was used, because few others were left.
    PoolPanic = "pool_panic",
    /// Another pool served in place of one that had no backend.
    PoolFallback = "pool_fallback",
    /// 503: the proxy has never had a configuration for this listener.
    ConfigMissing = "config_missing",
    /// 502: nothing listens at the backend's address.
    BackendConnectRefused = "backend_connect_refused",
    /// 502: the backend could not be connected to for another reason.
    BackendConnectFailed = "backend_connect_failed",
    /// 504: connecting took too long.
    BackendConnectTimeout = "backend_connect_timeout",
    /// 502: the backend ended the connection before its response was complete.
    BackendReset = "backend_reset",
    /// 504: the response did not come in time.
    BackendTimeout = "backend_timeout",
    /// 502: what the backend sent is no HTTP.
    BackendProtocolError = "backend_protocol_error",
    /// 502: the backend's name has no address.
    DnsFailure = "dns_failure",
    /// The backend answered 502, 503 or 504, and another one was asked in its place.
    BackendStatus = "backend_status",
    /// 503: as many requests are in progress as may be, and as many wait as may.
    QueueFull = "queue_full",
    /// 503: it waited until a request may wait no longer, and there was no room for it.
    QueueTimeout = "queue_timeout",
    /// 503: no control plane is there, and without one this proxy has no slot that it could use.
    NoLease = "no_lease",
    /// It was cut because it held a slot for longer than a request may, and no control plane
    /// was there to count it.
    SlotLost = "slot_lost",
    /// Not sent again: the pool's retries of the last ten seconds are as many as allowed.
    RetryBudgetExhausted = "retry_budget_exhausted",
    /// Not sent again: it was sent as often as the pool allows.
    RetriesExhausted = "retries_exhausted",
    /// 400, 405, 417, 505: the request breaks the protocol.
    ClientProtocolError = "client_protocol_error",
    /// 408: the head did not come in time.
    ClientHeaderTimeout = "client_header_timeout",
    /// 408: the body did not come in time.
    ClientBodyTimeout = "client_body_timeout",
    /// The client left before it was answered.
    ClientAbort = "client_abort",
    /// 414, 431: the request line, the head or the trailers are too large.
    HeaderTooLarge = "header_too_large",
    /// 413: the body is too large.
    BodyTooLarge = "body_too_large",
    /// 429: a limit lets no more requests pass for the moment.
    RateLimited = "rate_limited",
    /// 429: the client has too many connections.
    TooManyConnections = "too_many_connections",
    /// Nothing passed through an upgraded connection for too long.
    TunnelIdleTimeout = "tunnel_idle_timeout",
    /// 503: the proxy has too much to do.
    Overloaded = "overloaded",
    /// The process stopped before the exchange had ended.
    Draining = "draining",
    /// 503: the backend was drained, and the time that it had for that was over.
    DrainDeadline = "drain_deadline",
    /// 503: the client's own backend cannot serve it, and the pool gives it no other.
    SessionUnavailable = "session_unavailable",
    /// 508: the request goes round in a circle.
    LoopDetected = "loop_detected",
    /// 200: an OPTIONS asked the proxy itself (Max-Forwards 0).
    MaxForwardsReached = "max_forwards_reached",
    /// 403: management that may be asked for on this machine only.
    ManagementForbidden = "management_forbidden",
    /// 503: management, and the control plane does not answer; 502 or 504 when the request may
    /// have reached it.
    ControlPlaneAway = "control_plane_away",
    /// 500: a defect of the proxy.
    Internal = "internal",
}

impl Reason {
    /// What a client elsewhere is told instead of what happened, where that names what is behind
    /// the proxy: pools, backends, their addresses, commands for operators.
    pub(crate) fn told_to_strangers(self) -> Option<&'static str> {
        match self {
            Self::NoRoute => Some("nothing is served under this host and path"),
            Self::NoHealthyBackend | Self::ConfigMissing | Self::NoLease => {
                Some("no server can answer this request at present")
            }
            Self::BackendConnectRefused
            | Self::BackendConnectFailed
            | Self::BackendReset
            | Self::BackendProtocolError
            | Self::BackendStatus
            | Self::DnsFailure => Some("the server that was to answer this request failed"),
            Self::BackendConnectTimeout | Self::BackendTimeout => {
                Some("the server that was to answer this request did not do so in time")
            }
            Self::QueueFull | Self::QueueTimeout => {
                Some("the servers have as many requests as they take at a time")
            }
            Self::DrainDeadline => Some("the server that was to answer this request is stopping"),
            Self::SessionUnavailable => Some("the server of this session cannot answer at present"),
            Self::LoopDetected => Some("the request goes round in a circle"),
            Self::Overloaded => Some("this proxy has too much to do at present"),
            Self::RateLimited
            | Self::PoolPanic
            | Self::PoolFallback
            | Self::SlotLost
            | Self::RetryBudgetExhausted
            | Self::RetriesExhausted
            | Self::ClientProtocolError
            | Self::ClientHeaderTimeout
            | Self::ClientBodyTimeout
            | Self::ClientAbort
            | Self::HeaderTooLarge
            | Self::BodyTooLarge
            | Self::TooManyConnections
            | Self::TunnelIdleTimeout
            | Self::Draining
            | Self::MaxForwardsReached
            | Self::ManagementForbidden
            | Self::ControlPlaneAway
            | Self::Internal => None,
        }
    }

    /// Whether a backend failed, so that another one may be tried.
    pub(crate) fn is_of_a_backend(self) -> bool {
        matches!(
            self,
            Self::BackendConnectRefused
                | Self::BackendConnectFailed
                | Self::BackendConnectTimeout
                | Self::BackendReset
                | Self::BackendTimeout
                | Self::BackendProtocolError
                | Self::DnsFailure
                | Self::BackendStatus
        )
    }

    /// Whether it says why a request was not sent again.
    pub(crate) fn is_of_a_retry(self) -> bool {
        matches!(self, Self::RetryBudgetExhausted | Self::RetriesExhausted)
    }

    /// Whether it can be the reason of an answer that the proxy gave by itself: a client
    /// that left was not answered, and these others stand beside an answer.
    pub(crate) fn is_of_an_answer(self) -> bool {
        let stands_beside = matches!(
            self,
            Self::ClientAbort | Self::BackendStatus | Self::PoolPanic | Self::PoolFallback
        );
        !self.is_of_a_retry() && !stands_beside
    }

    /// Whether the client was given an answer, and it was refused for what it did.
    pub(crate) fn is_client_error(self) -> bool {
        matches!(
            self,
            Self::ClientProtocolError
                | Self::ClientHeaderTimeout
                | Self::ClientBodyTimeout
                | Self::HeaderTooLarge
                | Self::BodyTooLarge
                | Self::TooManyConnections
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_at_its_index_and_has_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
            assert!(names.insert(reason.name()), "{reason:?}");
        }
    }
}
