//! The page in a real browser, as a user sees it, at desktop and phone width.

#[path = "common/benches.rs"]
mod benches;
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isonorm_reports::html;
use isonorm_reports::summary::Summary;

/// Uses the page as a user would, and tells the page around it what came of that.
const USER: &str = include_str!("common/user.js");

fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|file| file.is_file())
}

/// What the user found at the given width.
fn visit(browser: &Path, folder: &Path, width: u32) -> serde_json::Value {
    let frame = format!(
        "<!doctype html><pre id=found></pre><script>addEventListener('message', (e) => \
         {{ document.getElementById('found').textContent = e.data; }});</script>\
         <iframe src=page.html style='width:{width}px;height:900px;border:0'></iframe>"
    );
    let outer = folder.join("frame.html");
    std::fs::write(&outer, frame).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--virtual-time-budget=10000", "--window-size=1400,1000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", outer.display()))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let found = dom.split("<pre id=\"found\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    serde_json::from_str(found.unwrap_or_default()).unwrap_or_else(|e| panic!("{e} in: {dom}"))
}

#[test]
fn a_user_can_read_the_page() {
    let Some(browser) = browser() else {
        eprintln!("SKIPPED: no Chromium on PATH, so nobody looked at the page");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let all = common::records().into_iter().chain(benches::records());
    let page = html::page(&Summary::of(all)).unwrap();
    assert_eq!(page.matches("</body>").count(), 1);
    std::fs::write(
        folder.path().join("page.html"),
        page.replace("</body>", &format!("<script>{USER}</script></body>")),
    )
    .unwrap();
    for width in [1280, 390] {
        let found = visit(&browser, folder.path(), width);
        let expected = serde_json::json!({
            "width": width, "overflow": 0, "rows": 25,
            "worst": "turbo.rms", "best_has_error": true, "last": "turbo.l2",
            "alphabet": "isonorm.add_layer_norm.backward", "filtered": "turbo.layer_norm_1pass",
            "theme": true, "figures_follow": true, "unfolded": true, "figures": 52, "loaded": 0, "blocked": 0,
        });
        assert_eq!(found, expected, "at {width} pixels");
    }
}
