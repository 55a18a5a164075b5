//! What the flow guard costs a caller of several tenants: to keep prints of an answer, and to look arguments up. It takes no round trip,
//! so it is measured in one process, after calls that are like others.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use mcp_mux::caller::Principal;
use mcp_mux::flow::FlowGuard;
use serde_json::{Value, json};
use tenant_store::{TenantId, Timestamp};
use tokio::time::Instant;

use super::measure::median;

/// What is measured, and how long one takes, in microseconds.
pub(crate) type Costs = Vec<(&'static str, f64)>;

const WORDS: [&str; 12] = [
    "order",
    "of",
    "the",
    "Northwind Traders",
    "was",
    "delivered",
    "to",
    "Ida Albrecht",
    "in",
    "Hamburg",
    "and",
    "paid",
];

/// Text of about that many bytes, another for each seed.
fn text(seed: usize, bytes: usize) -> String {
    let mut text = String::new();
    for (number, word) in (seed..).zip(WORDS.iter().cycle().skip(seed % WORDS.len()).step_by(7)) {
        if text.len() >= bytes {
            break;
        }
        text += if number % 9 == 0 { "BW-" } else { word };
        if number % 9 == 0 {
            text += &(10_000 + number).to_string();
        }
        text += " ";
    }
    text
}

/// How long the work takes with one of them, in microseconds.
fn each(texts: &[String], mut work: impl FnMut(&str)) -> f64 {
    let took = texts.iter().map(|text| {
        let began = Instant::now();
        work(black_box(text));
        began.elapsed()
    });
    median(took.map(|took: Duration| took.as_secs_f64() * 1e6))
}

/// Measures that often.
pub(crate) fn costs(rounds: usize) -> Result<Costs> {
    let reader = Principal { issuer: "corp".parse()?, subject: "somebody".parse()? };
    let tenant = || TenantId::new(Timestamp::from_millis(1));
    let (acme, globex) = (tenant(), tenant());
    let guard = FlowGuard::new();
    let all = |make: &dyn Fn(usize) -> Value| (0..rounds).map(|round| make(round).to_string()).collect::<Vec<_>>();
    let answers = |bytes| all(&|round| json!({ "content": [{ "type": "text", "text": text(round * 1_000, bytes) }] }));
    let arguments = |bytes| all(&|round| json!({ "note": text(round * 1_000 + 7_000_000, bytes) }));
    let read = |bytes| each(&answers(bytes), |answer| guard.read(&reader, acme, answer, Instant::now()));
    let find = |bytes| {
        each(&arguments(bytes), |said| {
            black_box(guard.find(&reader, globex, (said, ""), Instant::now()));
        })
    };
    Ok(vec![
        ("an answer of 256 B leaves its prints", read(256)),
        ("an answer of 64 KiB leaves its prints", read(64 * 1_024)),
        ("arguments of 256 B are looked up", find(256)),
        ("arguments of 64 KiB are looked up", find(64 * 1_024)),
    ])
}
