//! Before a look is judged: what lies beside the files that it saw.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::Coordinator;
use crate::source::file::beside;
use crate::source::file::catalog::Decision;
use crate::source::file::find::Found;
use crate::source::file::identity::Seen;

/// What was looked for beside, and when.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The inputs of the run before were looked for.
    rests: bool,
    /// When the last look began that saw the one file.
    since_ms: Option<u64>,
}

impl Coordinator {
    /// What is to be read before that which the look saw.
    pub(super) async fn beside(&mut self, began_ms: u64, found: &Found, seen: &[Seen]) -> Vec<Decision> {
        let mut decisions = Vec::new();
        if !std::mem::replace(&mut self.beside.rests, true) {
            decisions = self.rests(found, seen).await;
        }
        let one = seen.first().filter(|_| self.search.is_named());
        if let Some(one) = one {
            let since_ms = self.beside.since_ms.replace(began_ms);
            let is_new = !self.followed.catalog().knows(one.dev, one.ino);
            if let Some(since_ms) = since_ms.filter(|_| is_new) {
                decisions.extend(self.between(one, since_ms).await);
            }
        }
        decisions
    }

    /// Inputs of the run before that no path leads to any more.
    async fn rests(&self, found: &Found, seen: &[Seen]) -> Vec<Decision> {
        let mut missing = self.followed.catalog().missing(seen);
        let is_unsure = |path: &Path| found.unsure.iter().any(|unsure| path.starts_with(unsure));
        missing.retain(|missing| self.search.covers(&missing.path) && !is_unsure(&missing.path));
        if missing.is_empty() {
            return Vec::new();
        }
        let compression = self.compression;
        let looked = tokio::task::spawn_blocking(move || {
            let beside = beside::of_missing(&missing, compression);
            (missing, beside)
        });
        let Ok((mut missing, beside)) = looked.await else { return Vec::new() };
        let decisions = self.followed.catalog().find_rests(&beside);
        let opened: HashSet<u64> = decisions.iter().filter_map(opened).collect();
        missing.retain(|missing| !missing.ids.iter().any(|id| opened.contains(id)));
        let lost = beside::lost(missing);
        beside::tell_lost(&self.key, &lost);
        let mut catalog = self.followed.catalog();
        lost.iter().flat_map(|lost| &lost.ids).for_each(|id| catalog.told_lost(*id));
        decisions
    }

    /// Files that had the one file's path since it was last seen, and have another name now.
    async fn between(&self, one: &Seen, since_ms: u64) -> Vec<Decision> {
        let (path, search) = (one.path.clone(), Arc::clone(&self.search));
        let looked = tokio::task::spawn_blocking(move || beside::made_since(&path, &search, since_ms));
        let mut made = looked.await.unwrap_or_default();
        made.retain(|seen| (seen.dev, seen.ino) != (one.dev, one.ino));
        self.followed.catalog().between_looks(&one.path, &made, self.followed.ids())
    }
}

fn opened(decision: &Decision) -> Option<u64> {
    match decision {
        Decision::Open { id, .. } => Some(*id),
        _ => None,
    }
}
