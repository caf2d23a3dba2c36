//! Room for a request, where a pool or its backends may have only so many in progress: it
//! takes its slots, goes to another backend than the one that was picked, or waits in line.

use std::{future::poll_fn, sync::Arc, task::Poll};

use super::{
    attempts::Attempts,
    exchange::Exchange,
    presence,
    respond::OwnAnswer,
    stream::{Presence, Stream},
};
use crate::{
    leases::{PoolCaps, Waiter},
    reason::Reason,
    worker::now,
};

/// Why a request is sent nowhere.
pub(super) enum Denied {
    /// There was no room for it.
    NoRoom(OwnAnswer),
    /// The client left while it waited.
    ClientLeft,
}

/// What a request in line comes upon.
enum Event {
    Turn,
    ClientLeft,
    TimedOut,
}

/// Picks of one turn: others may be faster.
const PICKS_MAX: usize = 4;

impl<S: Stream> Exchange<'_, S> {
    /// Takes the slots that a request to the backend that was picked needs, or to another
    /// one, if there are any at once. It has them in `permit` then.
    pub(super) fn admit(
        &mut self,
        attempts: &Attempts<'_>,
        caps: &Arc<PoolCaps>,
        picked: u32,
    ) -> Option<u32> {
        // Whoever waits goes first.
        let is_first = caps.line().waiting() == 0;
        is_first.then(|| self.take_slots(attempts, caps, Some(picked))).flatten()
    }

    /// Waits for slots, in line with others.
    pub(super) async fn admit_later(
        &mut self,
        attempts: &mut Attempts<'_>,
        caps: &Arc<PoolCaps>,
    ) -> Result<u32, Denied> {
        let line = caps.line();
        // Another request may try the backend meanwhile.
        self.trial = None;
        let began = now();
        let waiter = match line.join(began) {
            Ok(waiter) => waiter,
            Err(full) => {
                let pool = &attempts.pool().name;
                let message = format!(
                    "pool {pool} has no room for another request, and {full} in this proxy"
                );
                return Err(self.no_room(attempts, caps, Reason::QueueFull, message));
            }
        };
        let admitted = self.wait_in_line(attempts, caps, waiter).await;
        let ended = now();
        line.count_wait(ended - began);
        if let Some(record) = &mut self.record {
            record.queued(ended);
        }
        attempts.waited(ended - began, ended);
        admitted
    }

    async fn wait_in_line(
        &mut self,
        attempts: &Attempts<'_>,
        caps: &Arc<PoolCaps>,
        waiter: Waiter,
    ) -> Result<u32, Denied> {
        let pool = attempts.pool();
        let began = now();
        self.worker.wheel.arm(&self.connection.timer, began, pool.queue_timeout);
        loop {
            let (connection, client_in) = (&mut *self.connection, &mut self.client_in);
            let event = poll_fn(|context| {
                match presence::look(&mut connection.stream, client_in, context) {
                    Presence::There | Presence::Talking => {}
                    Presence::Finished | Presence::Reset => return Poll::Ready(Event::ClientLeft),
                }
                if waiter.poll_turn(context).is_ready() {
                    return Poll::Ready(Event::Turn);
                }
                connection.timer.poll(context).map(|()| Event::TimedOut)
            })
            .await;
            match event {
                Event::Turn => match self.take_slots(attempts, caps, attempts.wanted()) {
                    Some(slot) => {
                        waiter.leave();
                        return Ok(slot);
                    }
                    None => waiter.pass_on(),
                },
                Event::ClientLeft => return Err(Denied::ClientLeft),
                Event::TimedOut => {
                    let message = format!(
                        "pool {} had no room for another request within {:?}",
                        pool.name,
                        now() - began
                    );
                    return Err(self.no_room(attempts, caps, Reason::QueueTimeout, message));
                }
            }
        }
    }

    /// Denies it for this reason, unless there is no room for want of a control plane.
    fn no_room(
        &mut self,
        attempts: &Attempts<'_>,
        caps: &PoolCaps,
        reason: Reason,
        message: String,
    ) -> Denied {
        Denied::NoRoom(match self.lacks_lease(attempts, caps) {
            Some(of) => OwnAnswer::new(
                503,
                Reason::NoLease,
                format!(
                    "no control plane has lent this proxy a slot of {of}, and other proxies, or \
                     the process before this one, may still use what they were lent; it gets one \
                     when a control plane answers, or a request timeout after one did last"
                ),
            ),
            None => OwnAnswer::new(503, reason, message),
        })
    }

    /// What it has no slot of because no control plane is there to lend it one; nothing if
    /// those that there are may merely be in use.
    fn lacks_lease(&mut self, attempts: &Attempts<'_>, caps: &PoolCaps) -> Option<String> {
        let pool = attempts.pool();
        if caps.lacks_lease() {
            return Some(format!("pool {}", pool.name));
        }
        let without: Vec<u32> = caps.without_lease().collect();
        if without.is_empty() {
            return None;
        }
        if attempts.tie.is_strict
            && let Some(own) = attempts.wanted()
        {
            return without
                .contains(&own)
                .then(|| "the backend of its client's session".to_owned());
        }
        let left_out = [attempts.slots(), attempts.over_slots(), &without].concat();
        let other = self.pick(pool, attempts.prepared(), &left_out, None, now());
        self.trial = None;
        let any = || format!("any backend of pool {} that could answer this request", pool.name);
        other.is_none().then(any)
    }

    /// Takes slots if they are free, of the backend that was picked rather than of another.
    fn take_slots(
        &mut self,
        attempts: &Attempts<'_>,
        caps: &Arc<PoolCaps>,
        picked: Option<u32>,
    ) -> Option<u32> {
        let now = now();
        if !caps.has_room(now) {
            return None;
        }
        if let Some(slot) = picked
            && let Some(permit) = caps.take(slot, now)
        {
            self.permit = Some(permit);
            return Some(slot);
        }
        if attempts.tie.is_strict && picked.is_some() {
            // There is no other for this client.
            return None;
        }
        let pool = attempts.pool();
        for _ in 0..PICKS_MAX {
            let mut left_out = [attempts.slots(), attempts.over_slots()].concat();
            left_out.extend(caps.full(now));
            self.trial = None;
            let slot = self.pick(pool, attempts.prepared(), &left_out, None, now)?;
            if let Some(permit) = caps.take(slot, now) {
                self.permit = Some(permit);
                return Some(slot);
            }
            if !caps.has_room(now) {
                break;
            }
        }
        // A backend that is not asked now is not tried by this request.
        self.trial = None;
        None
    }
}
