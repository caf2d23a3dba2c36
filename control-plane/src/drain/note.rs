//! Notes which proxies and processes are there, for the process after this one: see [`super::Drains`].
//!
//! Each note is a write to the disk, behind which other writes wait. So those that come or go
//! together, as after a restart, are noted together. Whoever comes alone is noted at once.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use lb_core::model::{InstanceId, ProxyId};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::RETRY;
use crate::{
    fleet::{ProxyState, ProxyView},
    grpc::Context,
    store::Present,
};

/// From one note to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Has it noted which proxies are there, until the context is stopped: that all streams end
/// then says nothing of the proxies.
pub(crate) async fn note_proxies(context: &Context) {
    let mut moments = Moments::new(context.fleet.members(), context.drains.complete_from);
    let (mut noted, mut is_passing) = (None, false);
    while context.stop.run_until_cancelled(moments.next(is_passing)).await == Some(true) {
        is_passing = note(context, &mut noted).await;
    }
}

/// Notes what may have changed since the last note, before the registry is stopped.
pub(crate) async fn note_once_more(context: &Context) {
    note(context, &mut None).await;
}

/// When there is something to be noted.
struct Moments {
    members: watch::Receiver<Arc<[ProxyId]>>,
    /// When all former proxies are back, or given up.
    complete: Instant,
    last: Option<Instant>,
}

impl Moments {
    fn new(members: watch::Receiver<Arc<[ProxyId]>>, complete: Instant) -> Self {
        Self { members, complete, last: None }
    }

    /// Waits for the next one, which is at once for the first. Some proxies may be passing: then
    /// there is one after a while. Returns whether there are to be more.
    async fn next(&mut self, is_passing: bool) -> bool {
        let (members, complete) = (&mut self.members, self.complete);
        if let Some(last) = self.last {
            sleep_until(last + PAUSE).await;
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return false },
                () = sleep_until(complete), if Instant::now() < complete => {}
                () = sleep(RETRY), if is_passing => {}
            }
        }
        members.mark_unchanged();
        self.last = Some(Instant::now());
        true
    }
}

/// Notes who is there, if that is known and was not `noted` yet. Whether somebody is there of
/// whose end nobody tells.
async fn note(context: &Context, noted: &mut Option<Present>) -> bool {
    let proxies = context.fleet.list();
    let Seen { present, stopped, is_passing } = seen(context, &proxies);
    let awaited = context.drains.awaited_next(present, &stopped, &proxies, context);
    if let Some(awaited) = awaited.filter(|awaited| noted.as_ref() != Some(awaited)) {
        *noted = Some(awaited.clone());
        context.registry.remember_proxies(awaited).await;
    }
    is_passing
}

/// What a process after this one is to know of the proxies.
#[derive(Debug, Default)]
struct Seen {
    /// Connected, or lost within a lease: a stream that has just broken off says nothing of its
    /// proxy. And the processes that were taken over and still report.
    present: Present,
    /// Those that said goodbye.
    stopped: Vec<ProxyId>,
    /// Some are there that were lost, or taken over.
    is_passing: bool,
}

fn seen(context: &Context, proxies: &[ProxyView]) -> Seen {
    let mut seen = Seen::default();
    let mut ended = BTreeSet::new();
    for ProxyView { info, state, last_seen, .. } in proxies {
        let process = (info.id.clone(), info.instance.clone());
        let is_lost = *state == ProxyState::Lost;
        if *state == ProxyState::Stopped || is_lost && *last_seen >= context.lease {
            if !is_lost {
                seen.stopped.push(info.id.clone());
            }
            ended.insert(process);
            continue;
        }
        seen.is_passing |= is_lost;
        seen.present.proxies.push(info.id.clone());
        seen.present.processes.push(process);
    }
    // In order of proxy ids, of which each is there once.
    let is_present =
        |process: &(ProxyId, InstanceId)| seen.present.processes.binary_search(process).is_ok();
    let mut former = context.statistics.processes(context.lease);
    former.retain(|process| !ended.contains(process) && !is_present(process));
    seen.is_passing |= !former.is_empty();
    seen.present.processes.extend(former);
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_that_come_together_are_noted_together_and_one_alone_at_once() {
        let members = watch::Sender::new(Arc::<[ProxyId]>::from([]));
        let (began, mut notes) = (Instant::now(), Vec::new());
        let come = async {
            sleep(Duration::from_secs(1)).await;
            // One, and a thousand within a second.
            for number in 0..=1000 {
                let id = ProxyId::new(&format!("p{number}")).unwrap();
                members.send_modify(|known| *known = known.iter().cloned().chain([id]).collect());
                sleep(Duration::from_micros(500)).await;
            }
            sleep(Duration::from_secs(9)).await;
        };
        let mut moments = Moments::new(members.subscribe(), began);
        let noting = async {
            while moments.next(false).await {
                notes.push((began.elapsed().as_millis(), members.borrow().len()));
            }
        };
        tokio::select! { () = noting => panic!("it ended"), () = come => {} }
        assert_eq!(notes[..2], [(0, 0), (1000, 1)], "at once");
        assert_eq!(notes.last().unwrap().1, 1001, "all of them: {notes:?}");
        // Timers go in whole milliseconds: it took a second.
        assert!(notes.len() <= 2 + 11, "{} notes: {notes:?}", notes.len());
        assert!(notes.windows(2).all(|pair| pair[1].0 - pair[0].0 >= PAUSE.as_millis()));
    }
}
