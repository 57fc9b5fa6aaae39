//! What is generated from the grammar: shell completions and manual pages.

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output;
use clap::CommandFactory;
use clap_complete::Shell;

/// `completion SHELL`.
pub fn completion(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "domain-ctl", &mut text);
    output::say(&String::from_utf8_lossy(&text));
    Ok(())
}

/// `manual [WORD...]`.
pub fn page(words: &[String]) -> Result<(), Failure> {
    let mut command = Arguments::command();
    command.build();
    for word in words {
        let found = command.find_subcommand(word).cloned();
        command = found.ok_or_else(|| {
            let known: Vec<&str> = command
                .get_subcommands()
                .map(clap::Command::get_name)
                .collect();
            Failure::Usage(format!(
                "{} has no command '{word}': it has {}",
                command.get_name(),
                known.join(", ")
            ))
        })?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut text)
        .map_err(|error| Failure::Plain(format!("error: {error}")))?;
    output::say(&String::from_utf8_lossy(&text));
    Ok(())
}
