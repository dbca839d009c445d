//! Has a source's certificate looked after while it runs, and says what came of it.

use std::sync::Arc;
use std::time::Duration;

use crate::source::part::Surroundings;
use crate::tls::server::{Renewed, Server};

/// Between two looks at the files. They are read when two looks agree.
const LOOK: Duration = Duration::from_secs(1);

/// Looks at the files until the source stops.
pub(super) async fn watch(tls: &Arc<Server>, key: &str, around: &Surroundings) {
    loop {
        tokio::select! {
            () = around.stop.raised() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let looking = Arc::clone(tls);
        // Files may lie where reading takes long.
        let Ok(found) = tokio::task::spawn_blocking(move || looking.look()).await else { return };
        match found {
            Renewed::Same => {}
            Renewed::Taken => {
                log::info!(target: "wpgen::net", "source '{key}': new certificate files; the next handshakes use them");
            }
            Renewed::Refused(finding) => {
                around.counters.errors.add(1);
                let mends: Vec<&str> = finding.help.iter().map(String::as_str).collect();
                log::warn!(
                    target: "wpgen::net",
                    "source '{key}': the new certificate files cannot be used, the old ones stay in use: {} ({})",
                    finding.message, mends.join("; ").replace('\n', " ")
                );
            }
        }
    }
}
