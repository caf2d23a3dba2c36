//! Keys made of segments, found by walking down one segment at a time.
//!
//! A node's children do not hang on the node: all of them stand in one hash table, under
//! their parent and their segment. So a step is one probe however many children there
//! are, a walk ends at the first segment that no key has, and it is never longer than
//! the longest key. Who may put keys in is an operator; who looks is anybody, and cannot
//! make a probe longer than the keys in the table allow.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The node that every walk begins at.
pub(super) const ROOT: usize = 0;

/// A tree of segments, with values at its nodes.
#[derive(Debug)]
pub(super) struct Trie<V> {
    nodes: Vec<Node<V>>,
    /// All nodes but the root, by their parent and segment.
    children: HashTable<usize>,
    /// Whether upper case is looked for as lower case.
    folds_case: bool,
}

#[derive(Debug)]
struct Node<V> {
    parent: usize,
    segment: Box<[u8]>,
    value: V,
}

impl<V: Default> Trie<V> {
    /// Holds a root. With `folds_case`, keys must be put in in lower case.
    pub(super) fn new(folds_case: bool) -> Self {
        let root = Node { parent: ROOT, segment: Box::default(), value: V::default() };
        Self { nodes: vec![root], children: HashTable::new(), folds_case }
    }

    /// The value of a key, made when it is new.
    pub(super) fn entry<'k>(&mut self, segments: impl Iterator<Item = &'k [u8]>) -> &mut V {
        let mut at = ROOT;
        for segment in segments {
            at = self.child(at, segment).unwrap_or_else(|| self.grow(at, segment));
        }
        &mut self.nodes[at].value
    }

    fn grow(&mut self, parent: usize, segment: &[u8]) -> usize {
        let new = self.nodes.len();
        self.nodes.push(Node { parent, segment: segment.into(), value: V::default() });
        let nodes = &self.nodes;
        let hash_of = |node: &usize| hash(nodes[*node].parent, &nodes[*node].segment);
        self.children.insert_unique(hash(parent, segment), new, hash_of);
        new
    }
}

impl<V> Trie<V> {
    /// Whether there is nothing but the root.
    pub(super) fn is_bare(&self) -> bool {
        self.children.is_empty()
    }

    pub(super) fn value(&self, node: usize) -> &V {
        &self.nodes[node].value
    }

    /// Walks down as far as there are nodes: the last of them, and whether all segments
    /// were used up. Without a segment it is the root, used up.
    pub(super) fn walk<'k>(&self, segments: impl Iterator<Item = &'k [u8]>) -> (usize, bool) {
        let mut at = ROOT;
        for segment in segments {
            match self.child(at, segment) {
                Some(child) => at = child,
                None => return (at, false),
            }
        }
        (at, true)
    }

    /// The node and those above it, the root last.
    pub(super) fn upwards(&self, node: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(node), |&at| (at != ROOT).then(|| self.nodes[at].parent))
    }

    fn child(&self, parent: usize, segment: &[u8]) -> Option<usize> {
        if self.folds_case && segment.iter().any(u8::is_ascii_uppercase) {
            let mut room = [0; SEGMENT_MAX];
            // A longer one is in no key.
            let lower = room.get_mut(..segment.len())?;
            lower.copy_from_slice(segment);
            lower.make_ascii_lowercase();
            return self.find(parent, lower);
        }
        self.find(parent, segment)
    }

    fn find(&self, parent: usize, segment: &[u8]) -> Option<usize> {
        let is_it = |node: &usize| {
            let node = &self.nodes[*node];
            node.parent == parent && *node.segment == *segment
        };
        self.children.find(hash(parent, segment), is_it).copied()
    }
}

/// The longest segment of a key with folded case: that of a host name, taken whole.
const SEGMENT_MAX: usize = 253;

fn hash(parent: usize, segment: &[u8]) -> u64 {
    xxh3_64_with_seed(segment, parent as u64)
}
