//! Before a look is judged: what lies beside the files that it saw.

use std::collections::HashSet;
use std::path::Path;

use super::Coordinator;
use crate::source::file::beside;
use crate::source::file::catalog::Decision;
use crate::source::file::find::Found;
use crate::source::file::identity::Seen;

/// What was looked for beside.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The inputs of the run before were looked for.
    rests: bool,
}

impl Coordinator {
    /// What is to be read before that which the look saw.
    pub(super) async fn beside(&mut self, found: &Found, seen: &[Seen]) -> Vec<Decision> {
        if std::mem::replace(&mut self.beside.rests, true) {
            return Vec::new();
        }
        self.rests(found, seen).await
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
}

fn opened(decision: &Decision) -> Option<u64> {
    match decision {
        Decision::Open { id, .. } => Some(*id),
        _ => None,
    }
}
