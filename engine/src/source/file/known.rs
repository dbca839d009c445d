//! The inputs a file source knows: which file each is, and how far every sink has it.
//!
//! One list for all shards; touched when a file is opened, retired or written to the checkpoint, never for a run.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::identity::{Identity, Seen, Verdict};
use crate::checkpoint::Input;

/// The inputs of one source.
#[derive(Debug)]
pub struct Known {
    inputs: Mutex<BTreeMap<u64, Input>>,
    /// The engine's next free identity.
    next: Arc<AtomicU64>,
}

impl Known {
    /// What the checkpoint says of a source; `next` is the engine's counter of identities.
    pub fn new(source: &str, inputs: &[Input], next: Arc<AtomicU64>) -> Self {
        let inputs = inputs.iter().filter(|i| i.source == source).map(|i| (i.id, i.clone())).collect();
        Self { inputs: Mutex::new(inputs), next }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Input>> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every input that is the given file, as far as it was read; one for a whole file, several for its ranges.
    pub fn find(&self, seen: &Seen) -> Vec<Input> {
        let same = |input: &&Input| {
            let Input { dev, ino, born_ns, fingerprint, .. } = **input;
            // A range is judged by the file's beginning alone; the whole file also by its size.
            // Of compressed files, positions are those of the content.
            let read = if input.ranges.is_empty() && input.content.is_none() { input.position } else { 0 };
            Identity { dev, ino, born_ns, fingerprint }.judge(seen, read) == Verdict::Same
        };
        self.lock().values().filter(same).cloned().collect()
    }

    /// Every input that is a plain file whose content could go on as one that begins with `head`.
    pub fn with_content(&self, head: &[u8]) -> Vec<Input> {
        let alike = |input: &&Input| {
            input.content.is_none() && !input.fingerprint.is_empty() && input.fingerprint.matches(head)
        };
        self.lock().values().filter(alike).cloned().collect()
    }

    /// Takes a new input and gives it an identity.
    pub fn add(&self, mut input: Input) -> u64 {
        input.id = self.next.fetch_add(1, Ordering::Relaxed);
        let id = input.id;
        self.lock().insert(id, input);
        id
    }

    /// Changes an input.
    pub fn update(&self, id: u64, change: impl FnOnce(&mut Input)) {
        if let Some(input) = self.lock().get_mut(&id) {
            change(input);
        }
    }

    /// Forgets an input: its file is gone and read.
    pub fn forget(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Every sink has the input up to `position`; `done` when there is no more of it.
    pub fn settled(&self, id: u64, position: u64, done: bool) {
        self.update(id, |input| advance(input, position, done));
    }

    /// All inputs, those with an open window as far as `low` says.
    pub fn snapshot(&self, low: &HashMap<u64, u64>) -> Vec<Input> {
        let mut inputs = self.lock();
        for (id, input) in inputs.iter_mut() {
            if let Some(position) = low.get(id) {
                advance(input, *position, input.done);
            }
        }
        inputs.values().cloned().collect()
    }
}

fn advance(input: &mut Input, position: u64, done: bool) {
    input.position = position;
    input.done = done;
    if let Some(range) = input.ranges.first_mut() {
        range.position = position;
    }
}
