//! Rules of this repository that the compiler cannot check. Each is one test, and names the file and the line that break it.
//!
//! A rule is a function from one file to its findings; [`bites`] tries each on a small sample that breaks it, so that a rule
//! which no longer finds anything is itself found. What clippy can do is left to clippy: functions over 70 lines
//! (`too_many_lines`) and refused methods (`clippy.toml`).

#[path = "tidy/source.rs"]
mod source;

use anyhow::bail;

use source::{File, code_of, files, is_word, names_under, occurrences};

/// Longest Rust file, in lines: without its unit tests, or whole if it is nothing but tests.
const FILE_LINES_MAX: usize = 500;
const README_LINES_MAX: usize = 250;

/// A word, and the only places that may say it. A place is a module or a folder, with all that is below it.
const OWNED_WORDS: &[(&str, &[&str])] = &[
    ("aes_gcm", &["crates/crypto"]),
    ("sea_orm", &["crates/tenant-store"]),
    // Nothing connects past the guard.
    ("hyper_util::client", &["crates/mcp-mux/src/egress", "crates/mcp-mux/benches"]),
    ("reqwest", &["crates/mcp-mux/tests", "tests"]),
    ("sqlx", &["crates/tenant-store"]),
    ("openidconnect", &["crates/mcp-mux/src/auth", "crates/mcp-mux/src/upstream/oauth"]),
    (
        "rmcp",
        &[
            "crates/mcp-mux/src/gateway",
            "crates/mcp-mux/src/mux",
            "crates/mcp-mux/src/catalog",
            "crates/mcp-mux/src/upstream",
            "crates/mcp-mux/src/dev",
            "examples",
            "tests",
        ],
    ),
    ("std::env", &["crates/mcp-mux/src/config", "crates/mcp-mux/benches", "crates/tenant-store/src/testing", "tests"]),
    // The two doors to a tenant's rows. Nothing that serves a request may stand in the second.
    (
        "TenantScope::of",
        &[
            "crates/mcp-mux/src/policy",
            "crates/mcp-mux/benches",
            "crates/mcp-mux/tests",
            "crates/tenant-store",
            "tests",
        ],
    ),
    (
        "Administration::for_the_platform",
        &[
            "crates/mcp-mux/src/app",
            "crates/mcp-mux/src/cli",
            "crates/mcp-mux/src/dev",
            "crates/mcp-mux/benches",
            "tests",
        ],
    ),
    ("tokio::spawn", &["crates/mcp-mux/src/lifecycle", "crates/mcp-mux/src/auth/keys/tests", "tests"]),
    (
        "expose_secret",
        &[
            "crates/crypto",
            "crates/tenant-store/src/credentials",
            "crates/tenant-store/src/store",
            "crates/tenant-store/tests",
            "crates/tenant-store/src/api_keys",
            "crates/mcp-mux/src/api_key",
            "crates/mcp-mux/src/auth",
            "crates/mcp-mux/src/cli",
            "crates/mcp-mux/src/config",
            "crates/mcp-mux/src/dev",
            "crates/mcp-mux/src/egress",
            "crates/mcp-mux/src/keys",
            "crates/mcp-mux/src/upstream",
            "crates/mcp-mux/benches/capacity",
            "crates/mcp-mux/tests",
            "examples",
            "tests",
        ],
    ),
];

/// The modules of the server from the top down. A module uses only modules of lower rows: nothing calls upwards, no circles.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["dev"],
    &["app", "bridge", "fuzzing", "import"],
    &["http"],
    &["auth", "gateway"],
    &["mux", "manifest", "review"],
    &["catalog", "keys", "replicas"],
    &["upstream"],
    &["allowance", "audit", "usage"],
    &["flow", "limits", "policy"],
    &["caller"],
    &["telemetry"],
    &["egress"],
    &["config"],
    &["api_key", "civil", "error", "hex", "json", "lifecycle", "protocol"],
];

/// What is forbidden although the rows would allow it: signing in knows nothing of tools.
const LAYERS_APART: &[(&str, &str)] = &[("auth", "mux"), ("auth", "manifest"), ("auth", "catalog")];

/// What may stand in no Rust file, and why.
const REFUSED_WORDS: &[(&str, &str)] = &[
    ("#[allow", "an exception is written down: `#[expect(lint, reason = \"…\")]`"),
    ("#![allow", "an exception is written down: `#[expect(lint, reason = \"…\")]`"),
    ("#[ignore", "no test is ignored: mend it or delete it"),
    ("dbg!", "left over from a search"),
    ("todo!", "unfinished code is not committed"),
    ("unimplemented!", "unfinished code is not committed"),
];

/// Where somebody's own machine shows. In pieces, because this file is checked as well.
const PRIVATE_FOLDERS: &[&str] = &[concat!("/", "work/"), concat!("/", "home/"), concat!("/", "root/")];

/// What is wrong in a file, and on which line, counted from 1.
#[derive(Debug, PartialEq)]
struct Finding(usize, String);

type Rule = fn(&File) -> Vec<Finding>;

/// Fails with every finding of `rule` in the repository.
fn holds(rule: Rule) -> anyhow::Result<()> {
    let mut report = Vec::new();
    for file in files()? {
        report.extend(rule(&file).into_iter().map(|Finding(line, problem)| format!("{}:{line}: {problem}", file.path)));
    }
    report.sort();
    if report.is_empty() { Ok(()) } else { bail!("{} findings\n{}", report.len(), report.join("\n")) }
}

// --- The rules ------------------------------------------------------------------------------------------------------

/// One finding on `line` when `broken`.
fn finding(broken: bool, line: usize, problem: impl Into<String>) -> Vec<Finding> {
    if broken { vec![Finding(line, problem.into())] } else { Vec::new() }
}

/// Every Rust file says at its top what it is for.
fn opens_with_its_purpose(file: &File) -> Vec<Finding> {
    finding(
        file.is_rust() && !file.text.starts_with("//!"),
        1,
        "must open with `//!`: what it is for, what it promises",
    )
}

fn is_short(file: &File) -> Vec<Finding> {
    let lines = if file.is_test() { file.text.lines().count() } else { file.production_lines() };
    let readme = file.path == "README.md" && file.text.lines().count() > README_LINES_MAX;
    let mut found =
        finding(readme, README_LINES_MAX, format!("the README ends at {README_LINES_MAX} lines: link to docs/"));
    let long = file.is_rust() && lines > FILE_LINES_MAX;
    found.extend(finding(long, FILE_LINES_MAX, format!("{lines} lines: a file ends at {FILE_LINES_MAX}, split it")));
    found
}

/// Modules are `name.rs` beside a folder `name/`.
fn is_no_mod_rs(file: &File) -> Vec<Finding> {
    finding(file.path.ends_with("/mod.rs"), 1, "a module is `name.rs` with a folder `name/`, never `mod.rs`")
}

fn says_no_refused_word(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    let code = code_of(&file.text);
    let say = |(word, why): &(&str, &str)| {
        let lines = occurrences(&code, word);
        lines.into_iter().map(|(line, _)| Finding(line, format!("`{word}`: {why}"))).collect::<Vec<_>>()
    };
    REFUSED_WORDS.iter().flat_map(say).collect()
}

/// A test waits for what it wants to see; how long that takes is not its business. Holds for clients in other languages too.
fn tests_do_not_sleep(file: &File) -> Vec<Finding> {
    let script =
        file.is_test() && ["py", "ts", "js", "mjs", "sh"].iter().any(|extension| file.has_extension(extension));
    if !file.is_rust() && !script {
        return Vec::new();
    }
    let code = if file.is_rust() { code_of(&file.text) } else { file.text.clone() };
    let mut lines = occurrences(&code, "sleep(");
    lines.retain(|(line, _)| script || *line > file.production_lines());
    lines
        .into_iter()
        .map(|(line, _)| Finding(line, "a test does not sleep: wait for the condition".to_owned()))
        .collect()
}

/// Each library and each right is used in the place that was made for it.
fn words_stay_with_their_owners(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    let code = code_of(&file.text);
    let mut found = Vec::new();
    for (word, places) in OWNED_WORDS {
        let lines: Vec<usize> = match word.split_once("::") {
            Some((root, name)) => {
                names_under(&code, root).into_iter().filter(|used| used.1 == name).map(|used| used.0).collect()
            }
            None => occurrences(&code, word).into_iter().map(|used| used.0).collect(),
        };
        let counted = if file.is_test() { usize::MAX } else { file.production_lines() };
        let lines =
            lines.into_iter().filter(|line| *line <= counted && !places.iter().any(|place| file.is_within(place)));
        found.extend(lines.map(|line| Finding(line, format!("`{word}` belongs to {}", places.join(", ")))));
    }
    found
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Within the server nothing calls upwards, so there are no circles.
fn modules_call_downwards(file: &File) -> Vec<Finding> {
    let Some((module, depth)) = file.server_module() else { return Vec::new() };
    let Some(layer) = layer_of(module) else {
        return finding(true, 1, format!("module `{module}` has no place among the LAYERS of tests/tidy.rs"));
    };
    let production: String = file.text.split_inclusive('\n').take(file.production_lines()).collect();
    let code = code_of(&production);
    let mut used = names_under(&code, "crate");
    used.extend(names_under(&code, &vec!["super"; depth].join("::")));
    used.retain(|(_, other)| {
        let lower = layer_of(other).is_none_or(|other| other > layer);
        *other != module && (!lower || LAYERS_APART.contains(&(module, other)))
    });
    used.into_iter().map(|(line, other)| Finding(line, format!("`{module}` must not use `{other}`"))).collect()
}

/// Without this line the lint table of the workspace does nothing for a member.
fn inherits_the_lints(file: &File) -> Vec<Finding> {
    let lints = file.text.split("[lints]").nth(1).and_then(|section| section.split("\n[").next());
    let inherits = lints.is_some_and(|section| section.lines().any(|line| line == "workspace = true"));
    finding(file.path.ends_with("Cargo.toml") && !inherits, 1, "must say `workspace = true` under `[lints]`")
}

fn lines_end_where_they_end(file: &File) -> Vec<Finding> {
    let lines = (1..).zip(file.text.lines()).filter(|(_, line)| line.ends_with([' ', '\t']));
    let captured = file.has_extension("snap") || file.has_extension("json");
    if captured {
        Vec::new()
    } else {
        lines.map(|(line, _)| Finding(line, "white space at its end".to_owned())).collect()
    }
}

/// A path of one machine means nothing on another, and a lock file that names one mirror works only beside it.
fn is_the_same_everywhere(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        let private = PRIVATE_FOLDERS.iter().any(|folder| {
            let mut places = line.match_indices(folder).filter_map(|(at, _)| line.get(..at));
            places.any(|before| !before.ends_with(|c| is_word(c) || "}.~-".contains(c)))
        });
        found.extend(finding(private, number, "a path that exists on one machine only"));
        let resolved = file.path.ends_with("package-lock.json") && line.trim_start().starts_with("\"resolved\"");
        found.extend(finding(resolved, number, "run npm with `--omit-lockfile-registry-resolved`"));
    }
    found
}

#[test]
fn every_file_opens_with_its_purpose() -> anyhow::Result<()> {
    holds(opens_with_its_purpose)
}

#[test]
fn every_file_is_short() -> anyhow::Result<()> {
    holds(is_short)
}

#[test]
fn no_module_is_called_mod_rs() -> anyhow::Result<()> {
    holds(is_no_mod_rs)
}

#[test]
fn no_file_says_a_refused_word() -> anyhow::Result<()> {
    holds(says_no_refused_word)
}

#[test]
fn no_test_sleeps() -> anyhow::Result<()> {
    holds(tests_do_not_sleep)
}

#[test]
fn libraries_secrets_and_the_environment_stay_with_their_owners() -> anyhow::Result<()> {
    holds(words_stay_with_their_owners)
}

#[test]
fn no_module_of_the_server_calls_upwards() -> anyhow::Result<()> {
    holds(modules_call_downwards)
}

#[test]
fn every_member_inherits_the_lints() -> anyhow::Result<()> {
    holds(inherits_the_lints)
}

#[test]
fn no_line_ends_in_white_space() -> anyhow::Result<()> {
    holds(lines_end_where_they_end)
}

#[test]
fn no_file_depends_on_the_machine_where_it_was_written() -> anyhow::Result<()> {
    holds(is_the_same_everywhere)
}

/// Each rule against samples that break it, or nearly do.
#[cfg(test)]
mod bites {
    use super::*;

    /// The lines on which `rule` finds something.
    fn lines(rule: Rule, path: &str, text: &str) -> Vec<usize> {
        rule(&File { path: path.to_owned(), text: text.to_owned() }).iter().map(|finding| finding.0).collect()
    }

    #[test]
    fn a_file_without_its_purpose_is_found() {
        assert_eq!(lines(opens_with_its_purpose, "src/a.rs", "// no\n"), [1]);
        assert_eq!(lines(opens_with_its_purpose, "src/a.rs", "//! Yes.\n"), []);
    }

    #[test]
    fn a_long_file_is_found_and_unit_tests_are_not_counted() {
        let (most, tests) = ("\n".repeat(FILE_LINES_MAX), "#[cfg(test)]\nmod tests {\n}\n");
        assert_eq!(lines(is_short, "src/a.rs", &format!("{most}{tests}")), []);
        assert_eq!(lines(is_short, "src/a.rs", &format!("\n{most}{tests}")), [FILE_LINES_MAX]);
        assert_eq!(lines(is_short, "tests/a.rs", &format!("{most}{tests}")), [FILE_LINES_MAX]);
        assert_eq!(lines(is_short, "README.md", &most), [README_LINES_MAX]);
    }

    #[test]
    fn a_mod_rs_is_found() {
        assert_eq!(lines(is_no_mod_rs, "src/a/mod.rs", ""), [1]);
    }

    #[test]
    fn refused_words_are_found_in_code_only() {
        let text = "// todo!\n\"dbg!\"\n#[allow(x)]\n#![allow(x)]\n#[ignore]\ndbg!(1);\ntodo!();\nunimplemented!()";
        assert_eq!(lines(says_no_refused_word, "src/a.rs", text).len(), 6);
        assert_eq!(lines(says_no_refused_word, "src/a.rs", "#[allowed]\nnot_todo!()"), [1]);
    }

    #[test]
    fn a_sleeping_test_is_found() {
        let text = "sleep(1);\n#[cfg(test)]\nmod tests {\n    tokio::time::sleep(1)\n}";
        assert_eq!(lines(tests_do_not_sleep, "crates/a/src/b.rs", text), [4]);
        assert_eq!(lines(tests_do_not_sleep, "tests/it/a.rs", text), [1, 4]);
        assert_eq!(lines(tests_do_not_sleep, "tests/clients/a.py", "time.sleep(1)"), [1]);
    }

    #[test]
    fn a_word_outside_its_place_is_found() {
        let rule = words_stay_with_their_owners;
        for (word, places) in OWNED_WORDS {
            let text = format!("\n{word}::x;\n#[cfg(test)]\nmod tests {{\n{word}::x }}\n");
            assert_eq!(lines(rule, "crates/mcp-mux/src/caller.rs", &text), [2], "{word}");
            for place in *places {
                assert_eq!(lines(rule, &format!("{place}/deep/a.rs"), &text), [], "{word} in {place}");
            }
        }
        assert_eq!(lines(rule, "crates/mcp-mux/src/app.rs", "use std::{fs, env::var};"), [1]);
        assert_eq!(lines(rule, "crates/mcp-mux/src/muxer.rs", "use rmcp::Error;"), [1]);
    }

    #[test]
    fn a_call_upwards_is_found() {
        let lines = |path, text| lines(modules_call_downwards, path, text);
        assert_eq!(
            lines("crates/mcp-mux/src/policy.rs", "use crate::caller::Caller;\nuse crate::{error, http::Route};"),
            [2]
        );
        assert_eq!(lines("crates/mcp-mux/src/catalog/view.rs", "use super::name;\nuse super::super::mux::Route;"), [2]);
        assert_eq!(lines("crates/mcp-mux/src/upstream.rs", "use super::catalog::Entry;"), [1]);
        assert_eq!(
            lines("crates/mcp-mux/src/auth/token.rs", "crate::gateway::a();\ncrate::mux::b();\ncrate::auth::c();"),
            [1, 2]
        );
        assert_eq!(lines("crates/mcp-mux/src/caller.rs", "#[cfg(test)]\nmod tests { use crate::app; }"), []);
        assert_eq!(lines("crates/mcp-mux/src/novel.rs", ""), [1]);
    }

    #[test]
    fn a_member_without_the_lints_is_found() {
        assert_eq!(lines(inherits_the_lints, "crates/a/Cargo.toml", "[package]\nworkspace = true\n"), [1]);
        assert_eq!(lines(inherits_the_lints, "crates/a/Cargo.toml", "[lints]\n\n[x]\nworkspace = true\n"), [1]);
        assert_eq!(lines(inherits_the_lints, "crates/a/Cargo.toml", "[lints]\nworkspace = true\n"), []);
    }

    #[test]
    fn white_space_at_the_end_of_a_line_is_found() {
        assert_eq!(lines(lines_end_where_they_end, "a.md", "one \ntwo\nthree\t\n"), [1, 3]);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for folder in PRIVATE_FOLDERS {
            assert_eq!(
                lines(is_the_same_everywhere, "a.md", &format!("x\nsee `{folder}a`, not example.com{folder}a")),
                [2]
            );
            assert_eq!(lines(is_the_same_everywhere, "a.md", &format!("example.com{folder}a")), []);
        }
        assert_eq!(lines(is_the_same_everywhere, "a/package-lock.json", "{\n  \"resolved\": \"x\"\n}"), [2]);
    }
}
