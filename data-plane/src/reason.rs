//! The vocabulary of reasons: why a request was not answered by a backend.
//!
//! The same words stand in the answer's body, in the access log and in the statistics,
//! so that a number can be followed to a line and from there to a client. A reason is
//! also the index of its counter, so that counting needs no map.

/// Why the proxy answered by itself, or why an exchange did not end well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// 404: no route matches host and path.
    NoRoute,
    /// 503: no backend of the pool may serve.
    NoHealthyBackend,
    /// A backend that is not well was used, because few others were left.
    PoolPanic,
    /// 503: the proxy has never had a configuration for this listener.
    ConfigMissing,
    /// 502: nothing listens at the backend's address.
    BackendConnectRefused,
    /// 502: the backend could not be connected to for another reason.
    BackendConnectFailed,
    /// 504: connecting took too long.
    BackendConnectTimeout,
    /// 502: the backend ended the connection before its response was complete.
    BackendReset,
    /// 504: the response did not come in time.
    BackendTimeout,
    /// 502: what the backend sent is no HTTP.
    BackendProtocolError,
    /// 502: the backend's name has no address.
    DnsFailure,
    /// The backend answered 502, 503 or 504, and another one was asked in its place.
    BackendStatus,
    /// Not sent again: the pool's retries of the last ten seconds are as many as allowed.
    RetryBudgetExhausted,
    /// Not sent again: it was sent as often as the pool allows.
    RetriesExhausted,
    /// 400, 405, 417, 505: the request breaks the protocol.
    ClientProtocolError,
    /// 408: the head did not come in time.
    ClientHeaderTimeout,
    /// 408: the body did not come in time.
    ClientBodyTimeout,
    /// The client left before it was answered.
    ClientAbort,
    /// 414, 431: the request line, the head or the trailers are too large.
    HeaderTooLarge,
    /// 413: the body is too large.
    BodyTooLarge,
    /// 429: the client has too many connections.
    TooManyConnections,
    /// Nothing passed through an upgraded connection for too long.
    TunnelIdleTimeout,
    /// 503: the proxy has too much to do.
    Overloaded,
    /// The process stopped before the exchange had ended.
    Draining,
    /// 503: the backend was drained, and the time that it had for that was over.
    DrainDeadline,
    /// 200: an OPTIONS asked the proxy itself (Max-Forwards 0).
    MaxForwardsReached,
    /// 403: management that may be asked for on this machine only.
    ManagementForbidden,
    /// 503: management, and the control plane does not answer; 502 or 504 when the request may
    /// have reached it.
    ControlPlaneAway,
    /// 500: a defect of the proxy.
    Internal,
}

impl Reason {
    /// Every reason, each at the index of its counter.
    pub(crate) const ALL: [Self; 29] = [
        Self::NoRoute,
        Self::NoHealthyBackend,
        Self::PoolPanic,
        Self::ConfigMissing,
        Self::BackendConnectRefused,
        Self::BackendConnectFailed,
        Self::BackendConnectTimeout,
        Self::BackendReset,
        Self::BackendTimeout,
        Self::BackendProtocolError,
        Self::DnsFailure,
        Self::BackendStatus,
        Self::RetryBudgetExhausted,
        Self::RetriesExhausted,
        Self::ClientProtocolError,
        Self::ClientHeaderTimeout,
        Self::ClientBodyTimeout,
        Self::ClientAbort,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::TooManyConnections,
        Self::TunnelIdleTimeout,
        Self::Overloaded,
        Self::Draining,
        Self::DrainDeadline,
        Self::MaxForwardsReached,
        Self::ManagementForbidden,
        Self::ControlPlaneAway,
        Self::Internal,
    ];

    /// As it is spelled everywhere.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoHealthyBackend => "no_healthy_backend",
            Self::PoolPanic => "pool_panic",
            Self::ConfigMissing => "config_missing",
            Self::BackendConnectRefused => "backend_connect_refused",
            Self::BackendConnectFailed => "backend_connect_failed",
            Self::BackendConnectTimeout => "backend_connect_timeout",
            Self::BackendReset => "backend_reset",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendProtocolError => "backend_protocol_error",
            Self::DnsFailure => "dns_failure",
            Self::BackendStatus => "backend_status",
            Self::RetryBudgetExhausted => "retry_budget_exhausted",
            Self::RetriesExhausted => "retries_exhausted",
            Self::ClientProtocolError => "client_protocol_error",
            Self::ClientHeaderTimeout => "client_header_timeout",
            Self::ClientBodyTimeout => "client_body_timeout",
            Self::ClientAbort => "client_abort",
            Self::HeaderTooLarge => "header_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::TooManyConnections => "too_many_connections",
            Self::TunnelIdleTimeout => "tunnel_idle_timeout",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::DrainDeadline => "drain_deadline",
            Self::MaxForwardsReached => "max_forwards_reached",
            Self::ManagementForbidden => "management_forbidden",
            Self::ControlPlaneAway => "control_plane_away",
            Self::Internal => "internal",
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
        let stands_beside =
            matches!(self, Self::ClientAbort | Self::BackendStatus | Self::PoolPanic);
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
