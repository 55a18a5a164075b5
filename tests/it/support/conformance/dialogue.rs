//! What asks for input: which questions, in which rounds, and what is made of the answers. The same questions are asked in both
//! eras: as input that a result requires, or as requests to the client.

use rmcp::ErrorData;
use rmcp::model::{InputRequiredResult, InputResponses};
use serde_json::{Value, json};

/// A tool or prompt that asks.
pub(super) struct Dialogue {
    name: String,
    /// In each round an object of questions by their keys.
    rounds: Vec<Value>,
    /// Whether it wants a state back, which tells the rounds apart and must be one that this server gave.
    has_state: bool,
}

/// What comes next.
pub(super) enum Turn {
    /// Questions.
    Ask(InputRequiredResult),
    /// No more of them, but these answers.
    Answered(Value),
}

fn form(message: &str, properties: &Value, required: &[&str]) -> Value {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}})
}

fn form_for(message: &str, name: &str) -> Value {
    form(message, &json!({name: {"type": "string"}}), &[name])
}

fn sample(text: &str, tokens: u32) -> Value {
    let message = json!({"role": "user", "content": {"type": "text", "text": text}});
    json!({"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": tokens}})
}

fn confirmation() -> Value {
    form("Please confirm", &json!({"ok": {"type": "boolean"}}), &["ok"])
}

fn address(message: &str) -> Value {
    let properties = json!({
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    });
    form(message, &properties, &["username", "email"])
}

/// One question with a default of each primitive type.
fn defaults() -> Value {
    let properties = json!({
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": true},
    });
    form("Please check these", &properties, &[])
}

/// One question with a choice of each kind.
fn choices() -> Value {
    let options = ["option1", "option2", "option3"];
    let titled = |titles: [&str; 3]| {
        let option = |(number, title): (usize, &&str)| json!({"const": format!("value{}", number + 1), "title": title});
        titles.iter().enumerate().map(option).collect::<Vec<_>>()
    };
    let properties = json!({
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled(["First Option", "Second Option", "Third Option"])},
        "legacyEnum": {
            "type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled(["First Choice", "Second Choice", "Third Choice"])}},
    });
    form("Please choose", &properties, &[])
}

/// A page that the user is to open.
fn page() -> Value {
    let params = json!({
        "mode": "url", "message": "Please sign", "url": "https://acme.example/sign", "elicitationId": "e-1",
    });
    json!({"method": "elicitation/create", "params": params})
}

/// Whether a client with these capabilities can answer the question.
fn can_answer(can: &Value, question: &Value) -> bool {
    let capability = match question["method"].as_str() {
        Some("elicitation/create") => "elicitation",
        Some("sampling/createMessage") => "sampling",
        _ => "roots",
    };
    can[capability].is_object()
}

/// Whether this can be an answer to the question at all.
fn answers(question: &Value, answer: &Value) -> bool {
    match question["method"].as_str() {
        Some("elicitation/create") if answer["action"] == "accept" => {
            let required = question["params"]["requestedSchema"]["required"].as_array();
            required.is_none_or(|names| {
                names.iter().all(|name| name.as_str().is_some_and(|name| !answer["content"][name].is_null()))
            })
        }
        Some("elicitation/create") => answer["action"] == "decline" || answer["action"] == "cancel",
        Some("sampling/createMessage") => !answer["content"].is_null(),
        _ => answer["roots"].is_array(),
    }
}

impl Dialogue {
    /// What the tool or prompt of this name asks a client with these capabilities, unless it asks nothing.
    pub(super) fn of(name: &str, arguments: &Value, can: &Value) -> Option<Self> {
        let mut has_state = false;
        let argument = |name: &str| arguments[name].as_str().unwrap_or_default();
        let first = match name.strip_prefix("test_input_required_result_").unwrap_or(name) {
            "test_sampling" => json!({"answer": sample(argument("prompt"), 100)}),
            "test_elicitation" => json!({"answer": address(argument("message"))}),
            "test_elicitation_sep1034_defaults" => json!({"answer": defaults()}),
            "test_elicitation_sep1330_enums" => json!({"answer": choices()}),
            "test_streaming_elicitation" => json!({"answer": form_for("Which word?", "word")}),
            "opens_page" => json!({"answer": page()}),
            "elicitation" | "test_tool_with_task" => json!({"user_name": form_for("What is your name?", "name")}),
            "sampling" => json!({"capital_question": sample("What is the capital of France?", 100)}),
            "list_roots" => json!({"client_roots": {"method": "roots/list", "params": {}}}),
            "prompt" => json!({"user_context": form_for("What context should the prompt use?", "context")}),
            "request_state" | "tampered_state" => {
                has_state = true;
                json!({"confirm": confirmation()})
            }
            "multi_round" => {
                has_state = true;
                json!({"step1": form_for("Step 1: What is your name?", "name")})
            }
            "multiple_inputs" | "capabilities" => {
                has_state = name.ends_with("inputs");
                json!({
                    "user_name": form_for("What is your name?", "name"),
                    "greeting": sample("Generate a greeting", 50),
                    "client_roots": {"method": "roots/list", "params": {}},
                })
            }
            _ => return None,
        };
        let mut rounds = vec![first];
        if name.ends_with("multi_round") {
            rounds.push(json!({"step2": form_for("Step 2: What is your favorite color?", "color")}));
        }
        if name.ends_with("capabilities") {
            rounds
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|asked| asked.retain(|_, q| can_answer(can, q)));
        }
        Some(Self { name: name.to_owned(), rounds, has_state })
    }

    /// All questions, in order.
    pub(super) fn questions(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.rounds.iter().filter_map(Value::as_object).flatten()
    }

    /// Whether a client with these capabilities can answer all of them.
    pub(super) fn is_for(&self, can: &Value) -> bool {
        self.questions().all(|(_, question)| can_answer(can, question))
    }

    /// What follows on these answers. `secret` is what nobody else can have written a state with.
    pub(super) fn turn(
        &self,
        secret: &str,
        state: Option<&str>,
        responses: Option<&InputResponses>,
    ) -> Result<Turn, ErrorData> {
        let state_of = |round: usize| format!("{}:{round}:{secret}", self.name);
        let round = match state {
            Some(given) if self.has_state => (0..self.rounds.len())
                .find(|round| state_of(*round) == given)
                .ok_or_else(|| ErrorData::invalid_params("the state is none that this server gave", None))?,
            _ => 0,
        };
        let questions = self.rounds.get(round).and_then(Value::as_object).into_iter().flatten();
        let given = json!(responses);
        let answered = state.is_some() == self.has_state
            && questions.into_iter().all(|(key, question)| answers(question, &given[key]));
        let next = round + usize::from(answered);
        let Some(questions) = self.rounds.get(next) else { return Ok(Turn::Answered(given)) };
        let requests = super::as_type(questions.clone())?;
        Ok(Turn::Ask(InputRequiredResult::new(Some(requests), self.has_state.then(|| state_of(next)))))
    }

    /// What is said in the end.
    pub(super) fn closing(&self, given: &Value) -> String {
        let answer = &given["answer"];
        match self.name.as_str() {
            "test_sampling" => format!("LLM response: {}", answer["content"]["text"].as_str().unwrap_or_default()),
            "test_elicitation" => format!("User response: {answer}"),
            "test_input_required_result_elicitation" => {
                format!("Hello, {}!", given["user_name"]["content"]["name"].as_str().unwrap_or_default())
            }
            "test_input_required_result_request_state" => format!("state-ok: {given}"),
            name if name.starts_with("test_elicitation_") => {
                let action = answer["action"].as_str().unwrap_or_default();
                format!("Elicitation completed: action={action}, content={}", answer["content"])
            }
            _ => given.to_string(),
        }
    }
}
