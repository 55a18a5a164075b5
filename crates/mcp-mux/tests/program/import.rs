//! `mcp-mux import` through the program: what it writes is applied to an empty database as it is.

use super::*;

const FILES: &[(&str, &str)] = &[
    ("mcpo", "mcpo.json"),
    ("metamcp", "metamcp.json"),
    ("mcphub", "mcphub.json"),
    ("mcp-servers-json", "claude.json"),
    ("mcp-servers-json", "vscode.json"),
];

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/import/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_is_imported_is_applied_to_an_empty_database_as_it_is() -> Result<()> {
    for (format, name) in FILES {
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        configure(folder, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
        let arguments = ["import", *format, &fixture(name), "--tenant", "acme", "--issuer", "corp", "--group", "staff"];
        let imported = run(folder, &arguments)?;
        assert!(imported.status.success(), "{}", said(&imported));
        let manifest = String::from_utf8(imported.stdout.clone())?;
        assert!(!manifest.contains("CANARY") && !said(&imported).contains("CANARY"), "{manifest}{}", said(&imported));
        let applied = run_with(folder, &["apply", "-f", "-"], &manifest)?;
        assert!(applied.status.success() && !said(&applied).contains(" 0 created"), "{manifest}{}", said(&applied));
        let exported = run(folder, &["export"])?;
        let exported: Vec<_> = String::from_utf8(exported.stdout)?.lines().map(ToOwned::to_owned).collect();
        assert_eq!(exported.len(), manifest.lines().count(), "all of it is there");
    }
    Ok(())
}

#[test]
fn a_folder_gets_three_files_and_never_other_ones_in_their_place() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let file = fixture("mcphub.json");
    let arguments = ["import", "mcphub", &file, "--output", "new/acme"];
    let written = run(folder, &arguments)?;
    assert!(written.status.success() && written.stdout.is_empty(), "{}", said(&written));
    let mut texts = Vec::new();
    for name in ["manifest.yaml", "report.txt", "secrets.sh"] {
        let text = fs::read_to_string(folder.join("new/acme").join(name))?;
        assert!(!text.is_empty() && !text.contains("CANARY"), "{name}: {text}");
        texts.push(text);
    }
    assert!(texts.iter().any(|text| text.contains("| mcp-mux secret set imported/petstore/x-api-key")));

    fs::remove_file(folder.join("new/acme/manifest.yaml"))?;
    fs::write(folder.join("new/acme/report.txt"), "mine")?;
    let refused = run(folder, &arguments)?;
    assert!(!refused.status.success() && said(&refused).contains("is there already"), "{}", said(&refused));
    assert_eq!(fs::read_to_string(folder.join("new/acme/report.txt"))?, "mine");
    assert!(!folder.join("new/acme/manifest.yaml").exists(), "all or nothing");
    Ok(())
}

#[test]
fn a_file_that_is_none_is_said_with_its_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    fs::write(folder.join("a.json"), "{\n  \"mcpServers\": \"CANARY\"\n}")?;
    let refused = run(folder, &["import", "mcpo", "a.json"])?;
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(said(&refused).contains("a.json:2:17: `mcpServers` must be a map"), "{}", said(&refused));
    assert!(!said(&refused).contains("CANARY"));
    let alone = run(folder, &["import", "mcpo", "a.json", "--group", "staff"])?;
    assert!(!alone.status.success() && said(&alone).contains("--issuer"), "{}", said(&alone));
    Ok(())
}
