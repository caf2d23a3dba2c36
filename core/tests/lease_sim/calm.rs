//! What must hold when nothing happens any more.

use crate::node::Node;

/// Once nothing happens any more, all is lent, by need.
pub(crate) fn check(of: u64, is_rate: bool, nodes: &[Node], now: u64) -> Result<(), String> {
    let up: Vec<_> = nodes.iter().filter(|node| node.is_up).collect();
    if let Some(index) = up.iter().position(|node| !node.is_leased(now)) {
        return Err(format!("proxy {index} of those that are up has no lease"));
    }
    let lent: Vec<u64> = up.iter().map(|node| node.usable(now)).collect();
    let sum: u64 = lent.iter().sum();
    let quantity = of * if is_rate { 1000 } else { 1 };
    // Some of it may be on its way from one to another.
    let slack = if is_rate { quantity / 10 + 3000 } else { up.len() as u64 };
    if sum + slack < quantity {
        return Err(format!("{lent:?} of {quantity} are lent"));
    }
    if !is_rate {
        return Ok(());
    }
    // What is left goes first where it is likely to be needed.
    let demands: Vec<f64> = up.iter().map(|node| node.demand).collect();
    let room = (of as f64 - demands.iter().sum::<f64>()).max(0.0);
    let more = |demand: f64| demand / 4.0 + (demand * 2.0).sqrt() / 2.0;
    let wanted: f64 = demands.iter().copied().map(more).sum();
    let part = if wanted > room { room / wanted } else { 1.0 };
    let asked = |demand: f64| 1000.0 * (demand + more(demand) * part);
    let demands: Vec<f64> = demands.into_iter().map(asked).collect();
    for (&lent, fair) in lent.iter().zip(max_min(quantity as f64, &demands)) {
        if (lent as f64 - fair).abs() > quantity as f64 * 0.15 + 1500.0 {
            return Err(format!("{lent} is lent instead of {fair}; demands {demands:?}"));
        }
    }
    Ok(())
}

/// The level by bisection, so that it is not the same computation.
fn max_min(quantity: f64, demands: &[f64]) -> Vec<f64> {
    let total: f64 = demands.iter().sum();
    if total <= quantity {
        let surplus = (quantity - total) / demands.len() as f64;
        return demands.iter().map(|demand| demand + surplus).collect();
    }
    let (mut low, mut high) = (0.0, quantity);
    for _ in 0..60 {
        let level = (low + high) / 2.0;
        let sum: f64 = demands.iter().map(|demand| demand.min(level)).sum();
        if sum > quantity { high = level } else { low = level }
    }
    demands.iter().map(|demand| demand.min(low)).collect()
}
