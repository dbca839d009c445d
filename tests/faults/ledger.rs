//! What a run may expect, kept while it goes: how much an engine has said it delivered, and how much may repeat. Pure.

use std::collections::HashMap;
use std::time::Instant;

use super::oracle::Allowed;
use super::scrape::{Figures, Scrape};

/// Of one input.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Messages that no restart brings again: what was on disk, positions included, when the engine was last struck.
    covered: u64,
    /// Messages that must be at every output, as far as the engine has said so.
    told: u64,
    /// Messages that may repeat where records may.
    repeats: u64,
}

/// The accounts of all inputs, by number.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: HashMap<u8, Account>,
    /// What cannot be.
    pub wrong: Vec<String>,
}

/// An input at the moment of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its number.
    pub input: u8,
    /// Messages it has written by now.
    pub written: u64,
    /// Whether it can be had again after a crash.
    pub can_repeat: bool,
}

/// How a life of the engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order, with everything delivered.
    Drained,
    /// In the middle of its work.
    Cut,
}

fn figures(scrape: Option<&Scrape>, input: u8) -> Figures {
    scrape.and_then(|scrape| scrape.sources.get(&format!("i{input}"))).copied().unwrap_or_default()
}

impl Ledger {
    /// Connections broke: what was not delivered by the last scrape before it may come again.
    pub fn broke(&mut self, before: Option<&Scrape>, standings: &[Standing]) {
        for Standing { input, written, .. } in standings {
            let account = self.accounts.entry(*input).or_default();
            let delivered = account.covered + figures(before, *input).delivered;
            account.repeats += written.saturating_sub(delivered);
        }
    }

    /// A life ended, of which these scrapes were seen. Returns what may repeat for that.
    pub fn ended(&mut self, end: End, scrapes: &[Scrape], standings: &[Standing]) -> Allowed {
        let mut repeats = Allowed::new();
        let last = scrapes.last();
        let covered_at = last.map(|last| last.checkpointed);
        let on_disk = |at: Instant| scrapes.iter().rev().find(|scrape| scrape.at <= at);
        for Standing { input, written, can_repeat } in standings {
            let account = self.accounts.entry(*input).or_default();
            let now = figures(last, *input);
            if now.received > *written {
                self.wrong.push(format!(
                    "input {input} wrote {written} messages, and the engine received {}",
                    now.received
                ));
            }
            if end == End::Drained {
                account.covered += now.delivered;
                account.told += if *can_repeat { 0 } else { now.received };
                continue;
            }
            account.covered += figures(covered_at.and_then(on_disk), *input).delivered;
            let again = written.saturating_sub(account.covered);
            account.repeats += again;
            repeats.insert(*input, again);
            account.told += if *can_repeat { 0 } else { now.delivered };
        }
        repeats
    }

    /// What may repeat where records may.
    pub fn allowed(&self) -> Allowed {
        self.accounts.iter().map(|(input, account)| (*input, account.repeats)).collect()
    }

    /// Messages of each input that every output must have, because the engine has said so.
    pub fn told(&self) -> impl Iterator<Item = (u8, u64)> {
        self.accounts.iter().map(|(input, account)| (*input, account.told))
    }
}
