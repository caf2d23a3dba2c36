//! What must hold at every moment.

use std::collections::BTreeSet;

use lb_core::lease::OnLoss;

use crate::{
    micros, ms,
    node::{DRIFT_PPM, Node},
    plan::{Faults, Plan},
};

/// Watches the sums over all proxies.
#[derive(Debug)]
pub(crate) struct Bound {
    /// What was the quantity at some time while leases of that time can be in force: in
    /// thousandths of a token per second, or in slots.
    most: u64,
    current: u64,
    /// When only the current quantity counts.
    settled_at: Option<u64>,
    /// When nothing is in force any more that a control plane prolonged after its start.
    prolonged_until: u64,
    /// Tokens by which all that was admitted is ahead of the rate.
    ahead: f64,
    admitted: u64,
}

impl Bound {
    pub(crate) fn new(plan: &Plan) -> Self {
        let current = Self::unit(plan) * plan.quantity;
        Self {
            most: current,
            current,
            settled_at: Some(0),
            prolonged_until: 0,
            ahead: 0.0,
            admitted: 0,
        }
    }

    fn unit(plan: &Plan) -> u64 {
        if plan.is_rate { 1000 } else { 1 }
    }

    pub(crate) fn quantity_changes(&mut self, plan: &Plan, quantity: u64, now: u64) {
        self.current = Self::unit(plan) * quantity;
        self.most = self.most.max(self.current);
        let ends = now + drifted(micros(plan.terms.counted_for()));
        let ends = ends.max(self.prolonged_until);
        self.settled_at = self.settled_at.map(|at| at.max(ends));
    }

    /// While it is away nothing can be told of a change. A proxy that it has not heard in its time
    /// was as good as cut off: it reckons with the leases of an earlier one, and does not know
    /// that this one has prolonged them.
    pub(crate) fn control_plane_stops(
        &mut self,
        plan: &Plan,
        heard: &BTreeSet<usize>,
        nodes: &mut [Node],
        now: u64,
    ) {
        self.settled_at = self.settled_at.filter(|at| *at <= now);
        let until = now + drifted(micros(plan.terms.counted_for()));
        for (_, node) in nodes.iter_mut().enumerate().filter(|(index, _)| !heard.contains(index)) {
            let safe = node.in_units(node.holder().remembered().0);
            let larger = if node.excess.1 > now { node.excess.0 } else { 0 };
            node.excess = (safe.max(larger), until.max(node.excess.1));
        }
    }

    /// A new control plane first prolongs what it finds, as long as what it does not know of may
    /// be in force, and then has what it prolonged last for as long.
    pub(crate) fn control_plane_starts(&mut self, plan: &Plan, nodes: &mut [Node], now: u64) {
        self.prolonged_until = now + 2 * drifted(micros(plan.terms.counted_for()));
        self.settled_at.get_or_insert(self.prolonged_until);
        for node in nodes.iter_mut().filter(|node| node.excess.1 > now) {
            node.excess.1 = self.prolonged_until;
        }
    }

    pub(crate) fn check(
        &mut self,
        plan: &Plan,
        nodes: &mut [Node],
        now: u64,
        step: u64,
    ) -> Result<(), String> {
        if self.settled_at.is_some_and(|at| at <= now) {
            self.most = self.current;
        }
        let counted_for = drifted(micros(plan.terms.counted_for()));
        let may_exceed = plan.faults == Faults::All && plan.on_loss != OnLoss::Nothing;
        let (mut sum, mut excess) = (0, 0);
        for node in &mut *nodes {
            let usable = node.usable(now);
            sum += usable.max(node.running.len() as u64);
            // What it has although it is no share, because there are fewer units than proxies.
            let one = node.beyond_its_share(now);
            if (may_exceed || one > 0) && node.is_up && !node.is_leased(now) {
                // It is cut off, alone for all it knows, and uses its safe share, or is about to:
                // then that is what a granter which hears it again counts for it and lets it
                // have. From then on the others are lent less, and what they were lent before
                // ends. But a granter that is in its first term lends nobody less, since it does
                // not know all yet; and one that starts before the others had to make room finds
                // more in use than there is, and prolongs all of it, too. So with each start of a
                // control plane the excess may last until two terms later, and not longer.
                let larger = if node.excess.1 > now { node.excess.0 } else { 0 };
                let safe = node.in_units(node.holder().remembered().0);
                let until = (now + counted_for).max(self.prolonged_until);
                node.excess = (safe.max(one).max(larger), until);
            }
            excess += if node.excess.1 > now { node.excess.0 } else { 0 };
        }
        if sum > self.most + excess {
            let each: Vec<_> = nodes
                .iter()
                .map(|node| (node.is_up, node.is_leased(now), node.usable(now), node.running.len()))
                .collect();
            return Err(format!("{sum} of {} and {excess} are in use: {each:?}", self.most));
        }
        if plan.is_rate {
            self.check_rate(nodes, (self.most + excess) as f64 / 1000.0, step)?;
        }
        Ok(())
    }

    /// In any window `W`, what was admitted is at most `R * W` and all bursts: the
    /// same as a single bucket that is as deep as all together.
    fn check_rate(&mut self, nodes: &[Node], rate: f64, step: u64) -> Result<(), String> {
        let admitted: u64 = nodes.iter().map(|node| node.admitted).sum();
        let bursts: u64 = nodes.iter().map(|node| u64::from(node.burst)).sum();
        let fast = 1.0 + DRIFT_PPM as f64 / 1e6;
        self.ahead = (self.ahead - rate * fast * step as f64 / 1e6).max(0.0);
        self.ahead += (admitted - self.admitted) as f64;
        self.admitted = admitted;
        // One for the step in which they come together.
        if self.ahead > (bursts + 1) as f64 + rate * ms(10) as f64 / 1e6 {
            return Err(format!("{} tokens ahead of {rate}/s, bursts {bursts}", self.ahead));
        }
        Ok(())
    }
}

/// As long by the slowest clock.
fn drifted(micros: u64) -> u64 {
    micros + micros * DRIFT_PPM.unsigned_abs() / 500_000
}
