//! A Maglev table: the same client goes to the same backend, at every proxy.
//!
//! Each backend prefers the entries of the table in an order of its own, made of two
//! hashes of its id; the backends choose in turn until no entry is free. So shares
//! differ by one entry at most, and when a backend goes, little changes beyond its
//! own entries (Eisenbud et al., NSDI 2016).
//!
//! All proxies must build the same table, whatever their version and the order in
//! which they learnt of the backends: the hash is XXH3, which is specified, and the
//! backends choose in order of their ids.
//!
//! The table's size must not follow the number of backends closely: another size
//! is another table, and moves nearly every client. It grows in steps of four, so that
//! pools of up to 655 backends, then 2 500, then 10 000 keep one size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Candidate, HashKey, Loads, PickContext, lists, slot_table::SlotTable};

/// Maps clients to backends.
pub(super) struct Maglev {
    entries: SlotTable,
    members: Box<[u32]>,
}

/// Seeds of the hashes. Changing one moves every client of every fleet.
const OFFSET_SEED: u64 = 0;
const SKIP_SEED: u64 = 1;
const KEY_SEED: u64 = 2;
const DETOUR_SEED: u64 = 3;

/// The smallest table: what the paper and Envoy use.
const SIZE_MIN: u64 = 65_537;

/// The first step of sizes, times four until it is enough; 62 500 * 4^2 is the
/// million of 10 000 backends.
const SIZE_STEP: u64 = 62_500;

/// Entries per backend, which keep shares within 1 %.
const ENTRIES_PER_BACKEND: u64 = 100;

impl Maglev {
    /// Fills the table. All weights must be above 0.
    pub(super) fn build(members: &[Candidate<'_>]) -> Self {
        let mut members = members.to_vec();
        members.sort_by_key(|member| member.id);
        let size = table_size(members.len() as u64);
        let mut preferences: Vec<_> =
            members.iter().map(|member| Preference::new(member, size)).collect();
        let heaviest = members.iter().map(|member| u64::from(member.weight)).max().unwrap_or(1);

        let entries_total = if members.is_empty() { 0 } else { index(size) };
        let mut entries = vec![0; entries_total];
        // One bit per entry stays in the fastest caches, where the entries do not.
        let mut taken = vec![0_u64; entries_total.div_ceil(64)];
        let mut free = entries_total;
        // In each round the heaviest choose once, the others in proportion.
        for round in 1.. {
            for (member, preference) in members.iter().zip(&mut preferences) {
                if free == 0 {
                    break;
                }
                let due = round * u64::from(member.weight) / heaviest;
                if due > preference.chosen {
                    preference.chosen += 1;
                    entries[preference.choose(&mut taken, size)] = member.slot;
                    free -= 1;
                }
            }
            if free == 0 {
                break;
            }
        }
        let members = members.iter().map(|member| member.slot).collect();
        Self { entries: SlotTable::new(&entries), members }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    #[inline]
    pub(super) fn pick<L: Loads>(&self, context: &PickContext<'_, L>) -> Option<u32> {
        if self.members.is_empty() {
            return None;
        }
        let entry = self.entry(hash(&context.key, KEY_SEED));
        let slot = self.entries.slot(entry);
        if context.excludes(slot) {
            return self.detour(entry, &context.key, context.excluded);
        }
        Some(slot)
    }

    /// Where a hash points: its position among all hashes, scaled to the table.
    #[inline]
    fn entry(&self, hash: u64) -> usize {
        let scaled = (u128::from(hash) * self.entries.len() as u128) >> 64;
        #[expect(clippy::cast_possible_truncation, reason = "below the length of the table")]
        let entry = scaled as usize;
        entry
    }

    /// Goes on from an excluded entry in strides that depend on the client, so that
    /// the clients of a failing backend spread over all others. The size is prime: any
    /// stride visits every entry.
    #[cold]
    fn detour(&self, from: usize, key: &HashKey<'_>, excluded: &[u32]) -> Option<u32> {
        // Only so many exclusions can leave nobody; otherwise the walk ends by itself.
        if excluded.len() >= self.len() && self.members.iter().all(|&slot| lists(excluded, slot)) {
            return None;
        }
        let size = self.entries.len();
        let stride = self.entry(hash(key, DETOUR_SEED)).max(1);
        (1..size)
            .scan(from, |entry, _| {
                *entry = (*entry + stride) % size;
                Some(self.entries.slot(*entry))
            })
            .find(|&slot| !lists(excluded, slot))
    }
}

/// The order in which one backend prefers the entries: every `skip`th from `next`.
struct Preference {
    next: u64,
    skip: u64,
    chosen: u64,
}

impl Preference {
    fn new(member: &Candidate<'_>, size: u64) -> Self {
        let id = member.id.as_bytes();
        Self {
            next: xxh3_64_with_seed(id, OFFSET_SEED) % size,
            skip: xxh3_64_with_seed(id, SKIP_SEED) % (size - 1) + 1,
            chosen: 0,
        }
    }

    /// Takes the first preferred entry that is free; there must be one.
    fn choose(&mut self, taken: &mut [u64], size: u64) -> usize {
        loop {
            let entry = index(self.next);
            self.next += self.skip;
            if self.next >= size {
                self.next -= size;
            }
            let (word, bit) = (entry / 64, 1 << (entry % 64));
            if taken[word] & bit == 0 {
                taken[word] |= bit;
                return entry;
            }
        }
    }
}

/// A hash of whatever stays the same for one client.
#[inline]
fn hash(key: &HashKey<'_>, seed: u64) -> u64 {
    match *key {
        HashKey::Client(address) => hash_of_address(address, seed),
        HashKey::Value(value) => xxh3_64_with_seed(value, seed),
    }
}

/// All of an IPv4 address, also when it is mapped into IPv6; of an IPv6 address the
/// network, since hosts change the rest at will.
#[inline]
fn hash_of_address(client: IpAddr, seed: u64) -> u64 {
    let whole = |address: Ipv4Addr| xxh3_64_with_seed(&address.octets(), seed);
    let network = |address: Ipv6Addr| xxh3_64_with_seed(&address.octets()[..8], seed);
    match client {
        IpAddr::V4(address) => whole(address),
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or_else(|| network(address), whole),
    }
}

/// How many entries serve this many backends: a prime, at least 65 537 and at least
/// 100 for each.
fn table_size(backends: u64) -> u64 {
    let wanted = backends * ENTRIES_PER_BACKEND;
    let mut step = SIZE_STEP;
    while step.max(SIZE_MIN) < wanted {
        step *= 4;
    }
    prime_from(step.max(SIZE_MIN))
}

/// The smallest prime that is not below `start`.
fn prime_from(start: u64) -> u64 {
    let is_prime = |n: &u64| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (start.max(2)..).find(is_prime).expect("there is always a larger prime")
}

fn index(entry: u64) -> usize {
    usize::try_from(entry).expect("a table of 100 entries for each candidate fits into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(weights: &[u16]) -> Maglev {
        let ids: Vec<_> = (0..weights.len()).map(|i| format!("backend{i}")).collect();
        let members: Vec<_> = (0..)
            .zip(&ids)
            .zip(weights)
            .map(|((slot, id), &weight)| Candidate { slot, id, weight })
            .collect();
        Maglev::build(&members)
    }

    fn shares(table: &Maglev) -> Vec<usize> {
        let mut shares = vec![0; table.len()];
        for entry in 0..table.entries.len() {
            shares[table.entries.slot(entry) as usize] += 1;
        }
        shares
    }

    #[test]
    fn sizes_are_primes_in_few_steps() {
        for (backends, size) in [
            (0, 65_537),
            (1, 65_537),
            (655, 65_537),
            (656, 250_007),
            (2_500, 250_007),
            (2_501, 1_000_003),
            (10_000, 1_000_003),
            (10_001, 4_000_037),
        ] {
            assert_eq!(table_size(backends), size, "{backends} backends");
        }
    }

    #[test]
    fn shares_differ_by_one_entry() {
        for backends in [1, 3, 100, 655] {
            let shares = shares(&build(&vec![1; backends]));
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{backends} backends: {least} to {most} entries");
            let fair = 65_537.0 / backends as f64;
            assert!(*most as f64 / fair <= if backends <= 100 { 1.002 } else { 1.01 });
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = [1, 2, 100, 256, 256];
        let table = build(&weights);
        for (share, weight) in shares(&table).into_iter().zip(weights) {
            let fair = 65_537.0 * f64::from(weight) / 615.0;
            assert!((share as f64 - fair).abs() <= 2.0, "weight {weight}: {share} for {fair}");
        }
    }

    /// Another table moves every client of a fleet while it is being upgraded. The
    /// numbers come from an independent implementation over the reference XXH3.
    #[test]
    fn the_table_is_the_same_in_every_version() {
        let table = build(&[1, 2, 3]);
        let clients = (0..12).map(|i| IpAddr::from([192, 168, 1, i]));
        let picks: Vec<_> = clients
            .map(|c| table.entries.slot(table.entry(hash_of_address(c, KEY_SEED))))
            .collect();
        assert_eq!(picks, [2, 1, 2, 2, 2, 2, 2, 2, 0, 0, 0, 2]);
        let entries: Vec<_> =
            (0..table.entries.len()).flat_map(|i| table.entries.slot(i).to_le_bytes()).collect();
        assert_eq!(xxh3_64_with_seed(&entries, 0), 5_726_407_843_032_736_026);
    }

    #[test]
    fn addresses_of_one_client_hash_alike() {
        let hash = |text: &str| hash_of_address(text.parse().unwrap(), 0);
        assert_eq!(hash("192.0.2.1"), hash("::ffff:192.0.2.1"));
        assert_ne!(hash("192.0.2.1"), hash("192.0.2.2"));
        assert_eq!(hash("2001:db8:0:1::1"), hash("2001:db8:0:1:2:3:4:5"));
        assert_ne!(hash("2001:db8:0:1::1"), hash("2001:db8:0:2::1"));
    }
}
