//! `stormwire doctor`: looks at the machine and at every dependency, changes nothing, and says what to
//! mend and how.

mod dependencies;
mod http;
mod machine;

use crate::cli::DoctorArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::output;
use serde_json::json;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// It works, and it could be better or was not looked at.
    Warn,
    /// It has to be mended.
    Fail,
}

/// What one check found.
#[derive(Debug)]
struct Finding {
    level: Level,
    check: &'static str,
    detail: String,
    /// How to mend it; empty where nothing is wrong.
    remedy: String,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, detail: detail.into(), remedy: String::new() }
    }

    fn warn(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, check, detail: detail.into(), remedy: remedy.into() }
    }

    fn fail(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Fail, check, detail: detail.into(), remedy: remedy.into() }
    }
}

/// Checks everything.
pub(crate) async fn run(args: DoctorArgs, config: &Config) -> Result<(), Failure> {
    let mut findings = machine::check(config);
    findings.extend(Box::pin(dependencies::check(config)).await);
    for finding in &findings {
        output::line(if args.json { as_json(finding) } else { as_text(finding) })?;
    }
    match findings.iter().filter(|finding| finding.level == Level::Fail).count() {
        0 => Ok(()),
        count => Err(Failure::failed(format!(
            "{count} of {} checks found something to mend",
            findings.len()
        ))),
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "FAIL",
    }
}

fn as_json(finding: &Finding) -> String {
    json!({
        "check": finding.check,
        "level": name(finding.level).to_lowercase(),
        "detail": finding.detail,
        "remedy": finding.remedy,
    })
    .to_string()
}

fn as_text(finding: &Finding) -> String {
    let Finding { level, check, detail, remedy } = finding;
    let mut line = format!("{:4}  {check}: {detail}", name(*level));
    if !remedy.is_empty() {
        line = line + "\n      mend it: " + remedy;
    }
    line
}
