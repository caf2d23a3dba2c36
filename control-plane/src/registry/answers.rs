//! What writes with an idempotency key were answered, so that a repetition gets the same.

use std::collections::{HashMap, VecDeque};

use crate::store::{ANSWERS_MAX, Answered};

/// The answers to writes with an idempotency key.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_key: HashMap<String, Answered>,
    in_order: VecDeque<String>,
}

impl Answers {
    pub(super) fn new(oldest_first: Vec<Answered>) -> Self {
        let mut answers = Self::default();
        oldest_first.into_iter().for_each(|answered| answers.insert(answered));
        answers
    }

    pub(super) fn get(&self, key: &str) -> Option<&Answered> {
        self.by_key.get(key)
    }

    pub(super) fn insert(&mut self, answered: Answered) {
        self.in_order.push_back(answered.key.clone());
        self.by_key.insert(answered.key.clone(), answered);
        while self.in_order.len() > ANSWERS_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}
