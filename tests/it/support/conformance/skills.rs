//! Skills: directories of instructions (SEP-2640). One is listed, the other is known to whoever knows its URI.

use rmcp::model::{Skill, SkillFrontmatter, SkillResource, SkillResources};
use serde_json::{Value, json};

/// Files, and what stands in them.
const FILES: [(&str, &str); 3] = [
    (LISTED, "---\nname: git-workflow\ndescription: How branches are named\n---\n\nSee references/BRANCHES.md.\n"),
    ("skill://git-workflow/references/BRANCHES.md", "Name a branch for what it does.\n"),
    (UNLISTED, "---\nname: release\ndescription: How we release\n---\n\nSlowly.\n"),
];
const LISTED: &str = "skill://git-workflow/SKILL.md";
const UNLISTED: &str = "skill://teams/release/SKILL.md";

/// The skills that are listed.
pub(super) fn listed() -> Vec<Skill> {
    get(LISTED).into_iter().collect()
}

/// The skill of that URI.
pub(super) fn get(uri: &str) -> Option<Skill> {
    let frontmatter = match uri {
        LISTED => SkillFrontmatter::new("git-workflow", "How branches are named"),
        UNLISTED => SkillFrontmatter::new("release", "How we release"),
        _ => return None,
    };
    let folder = uri.strip_suffix("SKILL.md")?;
    let files = FILES.iter().filter(|(uri, _)| uri.starts_with(folder));
    let files = files.map(|(uri, text)| SkillResource::from_bytes(*uri, text.as_bytes())).collect();
    Some(Skill::new(uri, frontmatter, SkillResources::Files(files)))
}

/// What a file holds.
pub(super) fn contents(uri: &str) -> Option<Value> {
    let (_, text) = FILES.iter().find(|(file, _)| *file == uri)?;
    Some(json!({"uri": uri, "mimeType": "text/markdown", "text": text}))
}

/// The listed skill among the resources.
pub(super) fn resource() -> Value {
    json!({"uri": LISTED, "name": "git-workflow", "description": "How branches are named", "mimeType": "text/markdown"})
}
