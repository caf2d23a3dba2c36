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
    registry::{Note, Registry},
    store::Present,
};

/// From one note to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Has it noted which proxies are there, until the context is stopped: that all streams end
/// then says nothing of the proxies.
pub(crate) async fn note_proxies(context: &Context) {
    let mut moments = Moments::new(context.fleet.members(), context.drains.complete_from);
    let (mut noted, mut is_due_again) = (None, false);
    while context.stop.run_until_cancelled(moments.next(is_due_again)).await == Some(true) {
        is_due_again = note(context, &mut noted).await;
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

    /// Waits for the next one, which is at once for the first. If the last note does not stand
    /// for long, there is one after a while. Returns whether there are to be more.
    async fn next(&mut self, is_due_again: bool) -> bool {
        let (members, complete) = (&mut self.members, self.complete);
        if let Some(last) = self.last {
            sleep_until(last + PAUSE).await;
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return false },
                () = sleep_until(complete), if last < complete => {}
                () = sleep(RETRY), if is_due_again => {}
            }
        }
        members.mark_unchanged();
        self.last = Some(Instant::now());
        true
    }
}

/// Notes who is there, if that is known and was not `noted` yet. Whether it is to be looked at
/// again after a while: somebody is there of whose end nobody tells, or the note could not be
/// stored.
async fn note(context: &Context, noted: &mut Option<Present>) -> bool {
    let proxies = context.fleet.list();
    let Seen { present, stopped, is_passing } = seen(context, &proxies);
    let awaited = context.drains.awaited_next(present, &stopped, &proxies, context);
    let is_stored = match awaited {
        Some(awaited) => store(&context.registry, awaited, noted).await,
        None => true,
    };
    is_passing || !is_stored
}

/// Stores a note that differs from the one that was stored last; whether it is stored now. One
/// that lacks somebody must not stand: the next process would not wait for that proxy, and let a
/// drain end under its requests.
async fn store(registry: &Registry, awaited: Present, noted: &mut Option<Present>) -> bool {
    if noted.as_ref() == Some(&awaited) {
        return true;
    }
    let is_stored = registry.note(Note::Proxies(awaited.clone())).await;
    if is_stored {
        *noted = Some(awaited);
    }
    is_stored
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
    use crate::{
        events::EventLog,
        store::faulty::{Fault, Faulty},
    };

    #[tokio::test(start_paused = true)]
    async fn a_note_that_could_not_be_stored_is_not_taken_for_made() {
        let faulty = Faulty::new();
        let events = Arc::new(EventLog::new());
        let registry = Registry::start(Box::new(faulty.clone()), events).unwrap();
        let of = |ids: &[&str]| Present {
            proxies: ids.iter().map(|id| ProxyId::new(id).unwrap()).collect(),
            processes: Vec::new(),
        };
        let mut noted = None;
        assert!(store(&registry, of(&["p1"]), &mut noted).await);
        faulty.will(&[Fault::Note]);
        assert!(!store(&registry, of(&["p1", "p2"]), &mut noted).await, "it comes again");
        assert_eq!(faulty.held().proxies, Some(of(&["p1"])));
        assert!(store(&registry, of(&["p1", "p2"]), &mut noted).await);
        assert_eq!(faulty.held().proxies, Some(of(&["p1", "p2"])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_note_is_made_when_all_are_back_even_while_it_pauses() {
        let members = watch::Sender::new(Arc::<[ProxyId]>::from([]));
        let began = Instant::now();
        let complete = began + PAUSE / 2;
        let mut moments = Moments::new(members.subscribe(), complete);
        assert!(moments.next(false).await);
        assert!(moments.next(false).await, "there was none since all are back");
        assert_eq!(began.elapsed(), PAUSE);
        let more = tokio::time::timeout(RETRY * 10, moments.next(false)).await;
        assert!(more.is_err(), "nothing has changed since");
    }

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
