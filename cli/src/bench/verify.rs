//! `bench verify`: looks for the messages of a bench in files that any program wrote.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::Refused;
use super::account::Ledger;
use super::recv::accounts;
use super::report::Report;
use super::scan::scan;
use crate::args::Verify;
use crate::commands::{DONE, FAILED};
use crate::printer::Printer;

/// Bytes of one read.
const READ_BYTES: u64 = 1 << 20;

/// Reads the files, and gives the exit code.
pub fn run(args: &Verify, printer: &Printer) -> Result<u8, Refused> {
    let mut ledger = Ledger::default();
    for path in &args.files {
        if path == Path::new("-") {
            let read = all(io::stdin().lock(), &mut ledger);
            read.map_err(|e| format!("cannot read standard input: {e}"))?;
        } else {
            file(path, &mut ledger)?;
        }
    }
    let account = ledger.account();
    if account.connections == 0 && account.corrupted == 0 {
        let help = "messages of `wpgen bench send` hold a word that begins with wpb1-";
        return Err(Refused::failed("no message of a bench is in there", help));
    }
    let mut report = Report::default();
    accounts(&mut report, account, args.sent);
    report.print(args.json, printer);
    let account = args.sent.map_or(account, |sent| account.with_sent(sent));
    Ok(if account.is_complete() { DONE } else { FAILED })
}

/// Counts the messages of a file.
pub fn file(path: &Path, ledger: &mut Ledger) -> Result<(), String> {
    let read = File::open(path).and_then(|file| all(file, ledger));
    read.map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn all(mut from: impl Read, ledger: &mut Ledger) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let read = from.by_ref().take(READ_BYTES).read_to_end(&mut bytes)?;
        let done = scan(&bytes, read == 0, |found| {
            ledger.take(found);
        });
        bytes.drain(..done);
        if read == 0 {
            return Ok(());
        }
    }
}
