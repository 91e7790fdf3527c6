//! `hakaru journal verify`.

use std::io::Write;

use serde_json::json;

use super::{InspectError, Inspection, Output, verdict, with_error};
use crate::journal::segment::lanes;
use crate::os::printable::Printable;

impl Inspection {
    /// Reads every lane and reports what is damaged.
    pub fn verify(&self, out: &mut impl Write) -> Result<(), InspectError> {
        let (mut damaged, mut torn, mut unreadable) = (0, 0, 0);
        for lane in Self::io(&self.journal, lanes(&self.journal))? {
            // The owner may be writing what is no record yet.
            let is_owned = self.is_owned(lane);
            let Some(contents) = self.contents(lane) else {
                continue;
            };
            damaged += contents.damages.len();
            torn += usize::from(contents.torn_bytes > 0 && !is_owned);
            unreadable += usize::from(contents.error.is_some());
            let events = contents.events;
            match self.output {
                Output::Text => {
                    let tail = match contents.torn_bytes {
                        0 => String::new(),
                        bytes => format!(", followed by {bytes} bytes that are no record"),
                    };
                    let state = match contents.error {
                        Some(_) => "UNREADABLE",
                        None if !contents.damages.is_empty() => "DAMAGED",
                        None if contents.torn_bytes > 0 && !is_owned => "TORN",
                        None => "whole",
                    };
                    writeln!(out, "{lane}  {state}: {events} events{tail}")?;
                    for damage in &contents.damages {
                        writeln!(out, "  {}", Printable(damage))?;
                    }
                    if let Some(error) = contents.error {
                        writeln!(out, "  {}", Printable(error))?;
                    }
                }
                Output::Json => {
                    let damages: Vec<String> =
                        contents.damages.iter().map(ToString::to_string).collect();
                    let line = json!({
                        "lane": lane.to_string(), "events": events, "torn": contents.torn_bytes > 0,
                        "torn_bytes": contents.torn_bytes, "damages": damages,
                    });
                    writeln!(out, "{}", with_error(line, contents.error.as_ref()))?;
                }
            }
        }
        match verdict(damaged, unreadable) {
            Ok(()) if torn > 0 => Err(InspectError::Torn(torn)),
            verdict => verdict,
        }
    }
}
