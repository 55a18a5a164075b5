//! What is found, and what is not.

use std::time::Duration;

use serde_json::{Value, json};
use tenant_store::{TenantId, Timestamp};
use tokio::time::Instant;

use super::{Flow, FlowGuard, REMEMBERED};
use crate::caller::Principal;

/// A guard, a reader, and two tenants.
struct Bed {
    guard: FlowGuard,
    reader: Principal,
    acme: TenantId,
    globex: TenantId,
    now: Instant,
}

fn principal(subject: &str) -> Principal {
    Principal { issuer: "corp".parse().unwrap(), subject: subject.parse().unwrap() }
}

impl Bed {
    fn new() -> Self {
        let tenant = || TenantId::new(Timestamp::from_millis(1));
        let reader = principal("carol");
        Self { guard: FlowGuard::new(), reader, acme: tenant(), globex: tenant(), now: Instant::now() }
    }

    /// Acme answered this.
    fn read(&self, text: &str) {
        let answer = json!({ "content": [{ "type": "text", "text": text }], "isError": false }).to_string();
        self.guard.read(&self.reader, self.acme, &answer, self.now);
    }

    fn find(&self, tenant: TenantId, arguments: &Value) -> Option<Flow> {
        self.guard.find(&self.reader, tenant, (&arguments.to_string(), ""), self.now)
    }

    /// Whether that is acme's, when it is said to globex.
    fn is_found(&self, text: &str) -> bool {
        let found = self.find(self.globex, &json!({ "query": text }));
        assert!(found.as_ref().is_none_or(|flow| flow.from == [self.acme]), "{found:?}");
        found.is_some()
    }
}

const LETTER: &str = "Brightwater Analytics asked on Tuesday whether we could bring the second delivery forward. Their buyer, \
    Ida Albrecht (ida.albrecht@brightwater.example), says the customs papers for order BW-20417 lie in Hamburg since last week, \
    and that the penalty begins to run on the first of the month whatever the carrier says about the weather in the channel.";

#[test]
fn a_customers_name_an_address_and_a_number_are_found_however_they_are_written() {
    let bed = Bed::new();
    bed.read(LETTER);
    for text in [
        "tell Brightwater Analytics that we are late",
        "TELL BRIGHTWATER ANALYTICS",
        "brightwater-analytics",
        "Bright\u{200b}water Analytics",
        "Ｂｒｉｇｈｔｗａｔｅｒ Analytics",
        "who is Ida Albrecht?",
        "mail ida.albrecht@brightwater.example",
        "status of BW-20417, please",
        "{\"order\":\"bw-20417\"}",
    ] {
        assert!(bed.is_found(text), "{text}");
    }
    for text in ["what is the weather in Hamburg", "the first of the month", "order 20418", "Tuesday", "analytics"] {
        assert!(!bed.is_found(text), "{text}");
    }
}

#[test]
fn a_copied_paragraph_is_found_and_a_common_phrase_is_not() {
    let bed = Bed::new();
    let paragraph = "the penalty begins to run on the first of the month whatever the carrier says about the weather in the channel";
    bed.read(&format!("{paragraph} and please let me know if you have questions"));
    assert!(bed.is_found(&format!("note this: {paragraph}!")));
    assert!(bed.is_found(&paragraph.to_uppercase().replace(' ', ",\n")));
    assert!(!bed.is_found("the penalty begins to run when somebody says so"));
    // Eight words are one piece at the most, which is not enough.
    assert!(!bed.is_found("please let me know if you have questions"));
}

#[test]
fn names_are_found_in_json_within_text_and_in_numbers() {
    let bed = Bed::new();
    bed.read(r#"{"rows":[{"customer":"Brightwater Analytics","account":40028871,"opened":"2026-11-26"}]}"#);
    assert!(bed.is_found("Brightwater Analytics"));
    assert!(bed.find(bed.globex, &json!({ "account": 40_028_871 })).is_some());
    assert!(bed.find(bed.globex, &json!({ "day": "2026-11-26", "n": 12 })).is_none());
}

#[test]
fn what_has_no_space_for_long_hides_nothing() {
    let bed = Bed::new();
    let compact =
        json!({"url": "https://acme.example/".to_owned() + &"a".repeat(300), "customer": "Brightwater Analytics"});
    bed.read(&compact.to_string());
    bed.read(&format!("{} order BW-20417", "-".repeat(300)));
    assert!(bed.is_found("Brightwater Analytics"));
    assert!(bed.is_found(&format!("{}Brightwater Analytics", "-".repeat(300))));
    assert!(bed.is_found("BW-20417"));
}

#[test]
fn nobody_talks_another_tenants_text_out_of_memory() {
    let bed = Bed::new();
    bed.read(LETTER);
    for round in 0..20 {
        let words: Vec<String> = (0..100_000).map(|number| format!("w{round}x{number}")).collect();
        let now = bed.now + Duration::from_secs(round);
        bed.guard.read(&bed.reader, bed.globex, &json!(words.join(" ")).to_string(), now);
    }
    assert!(bed.is_found("Ida Albrecht"));
    bed.guard.readers.run_pending_tasks();
    assert!(bed.guard.readers.weighted_size() <= 100_000, "{}", bed.guard.readers.weighted_size());
}

#[test]
fn what_a_tenant_has_said_or_heard_is_no_news_to_it() {
    let bed = Bed::new();
    bed.read(LETTER);
    assert!(bed.find(bed.acme, &json!(LETTER)).is_none(), "its own text");
    let found = bed.find(bed.globex, &json!("Ida Albrecht")).unwrap();
    bed.guard.told(&bed.reader, bed.globex, &found, bed.now);
    assert!(!bed.is_found("Ida Albrecht"), "it heard that");
    assert!(bed.is_found("Brightwater Analytics"), "but not this");
    bed.guard.read(&bed.reader, bed.globex, &json!("Brightwater Analytics").to_string(), bed.now);
    assert!(!bed.is_found("Brightwater Analytics"), "it says so itself");
}

#[test]
fn what_the_definition_of_a_tool_says_is_nobodys_secret() {
    let bed = Bed::new();
    bed.read("Brightwater Analytics");
    let definition = json!({ "name": "a", "description": "For Brightwater Analytics" }).to_string();
    let found =
        bed.guard.find(&bed.reader, bed.globex, (&json!("Brightwater Analytics").to_string(), &definition), bed.now);
    assert_eq!(found, None);
}

#[test]
fn each_reader_is_remembered_alone_and_for_a_while_only() {
    let bed = Bed::new();
    bed.read(LETTER);
    let arguments = json!("Ida Albrecht").to_string();
    let of = |reader: &Principal, now| bed.guard.find(reader, bed.globex, (&arguments, ""), now);
    assert!(of(&bed.reader, bed.now + REMEMBERED).is_some());
    assert!(of(&bed.reader, bed.now + REMEMBERED + Duration::from_secs(1)).is_none());
    assert!(of(&principal("dora"), bed.now).is_none());
}

#[test]
fn of_more_tenants_than_are_kept_the_one_that_spoke_longest_ago_is_forgotten() {
    let bed = Bed::new();
    bed.read(LETTER);
    for number in 0..64_u64 {
        let other = TenantId::new(Timestamp::from_millis(1));
        let now = bed.now + Duration::from_millis(number + 1);
        bed.guard.read(&bed.reader, other, &json!(format!("Zebulon{number} Quince")).to_string(), now);
    }
    assert!(!bed.is_found("Ida Albrecht"));
    assert!(bed.find(bed.globex, &json!("Zebulon63 Quince")).is_some());
}

#[test]
fn a_flood_of_text_leaves_a_bounded_memory() {
    let bed = Bed::new();
    for round in 0..40 {
        let words: Vec<String> = (0..8_000).map(|number| format!("w{round}x{number}")).collect();
        bed.read(&words.join(" "));
    }
    bed.guard.readers.run_pending_tasks();
    assert!(bed.guard.readers.weighted_size() <= 100_000, "{}", bed.guard.readers.weighted_size());
    // What came last is still there.
    let last: Vec<String> = (0..60).map(|number| format!("w39x{number}")).collect();
    assert!(bed.is_found(&last.join(" ")));
}

/// Sentences of many trades. Those of one half, `0` or `1`, say nothing of what those of the other say, in the same turns of phrase.
fn unrelated(half: usize, seed: usize) -> String {
    const WHO: [&str; 10] = [
        "The customer",
        "Our team",
        "The auditor",
        "A supplier",
        "Support",
        "The board",
        "Finance",
        "The new release",
        "An engineer",
        "Marketing",
    ];
    const DOES: [&str; 10] = [
        "wants to know",
        "has decided",
        "wrote yesterday",
        "is waiting to hear",
        "confirmed on Monday",
        "asks again",
        "does not believe",
        "will report in March",
        "cannot say yet",
        "was told",
    ];
    const WHAT: [&str; 10] = [
        "whether the Invoice was paid in time",
        "that Pull Request 42 is ready",
        "how long the Project Plan will hold",
        "why the Status is still Open",
        "that New York and London agree on the Next Steps",
        "what the budget for 2027 looks like",
        "if the meeting on 2026-12-03 takes place",
        "that version 2.4.1 runs on https://status.example.com",
        "where the Action Items went",
        "that Microsoft Teams was down for an hour",
    ];
    const AND: [&str; 10] = [
        "Please let me know.",
        "Thank You.",
        "Best Regards",
        "See the Release Notes.",
        "No further action is needed.",
        "Priority: High",
        "Due Date: 2026-12-24",
        "It is 10:30 now.",
        "Kind regards from the whole team",
        "More in the Annual Report.",
    ];
    let what = WHAT[seed % 5 * 2 + half];
    format!("{} {} {what}. {}", WHO[seed / 5 % 10], DOES[seed / 50 % 10], AND[seed / 500 % 10])
}

#[test]
fn a_thousand_unrelated_calls_are_left_alone() {
    let bed = Bed::new();
    for seed in 0..700 {
        bed.read(&unrelated(0, seed * 37 + 5));
    }
    bed.read(LETTER);
    let alarms: Vec<String> =
        (0..1_000).map(|seed| unrelated(1, seed * 7 + 1)).filter(|text| bed.is_found(text)).collect();
    assert!(alarms.is_empty(), "{} of 1000: {:?}", alarms.len(), alarms.first());
}
