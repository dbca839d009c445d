//! `completions` and `man`: both derive from the grammar alone.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{DONE, FAILED};
use crate::args::Cli;
use crate::printer::Printer;

/// Prints a shell's completion script.
pub fn completions(shell: Shell, printer: &Printer) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "wpgen", &mut script);
    printer.result(&String::from_utf8_lossy(&script));
    DONE
}

/// Prints the manual: the page of `wpgen`, then one section a command.
pub fn man(printer: &Printer) -> u8 {
    let mut page = Vec::new();
    match render(&mut page) {
        Ok(()) => {
            printer.result(&String::from_utf8_lossy(&page));
            DONE
        }
        Err(e) => {
            printer.error(&format!("cannot make the manual page: {e}"));
            FAILED
        }
    }
}

fn render(page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut command = Cli::command();
    command.build();
    let man = clap_mangen::Man::new(command.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    page.extend_from_slice(synopsis(&command).as_bytes());
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    for group in command.get_subcommands() {
        render_command(page, group, group.get_name())?;
    }
    man.render_extra_section(page)
}

/// Each option with what stands behind it, as the options' own section has it.
fn synopsis(command: &Command) -> String {
    let options = command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional());
    let options: String = options.map(|arg| format!(" [{}]", roff(&arg.to_string()))).collect();
    format!(".SH SYNOPSIS\n\\fBwpgen\\fR{options} <\\fIcommand\\fR>\n")
}

/// A command that has commands of its own is only their heading.
fn render_command(page: &mut Vec<u8>, command: &Command, name: &str) -> std::io::Result<()> {
    if command.has_subcommands() {
        for inner in command.get_subcommands() {
            render_command(page, inner, &format!("{name} {}", inner.get_name()))?;
        }
        return Ok(());
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page.extend_from_slice(format!(".SS wpgen {name}\n{}\n", roff(&about)).as_bytes());
    for arg in
        command.get_arguments().filter(|a| !a.is_global_set() && !a.is_hide_set() && a.get_id() != "help")
    {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        page.extend_from_slice(
            format!(".TP\n\\fB{}\\fR\n{}\n", roff(&arg.to_string()), roff(&help)).as_bytes(),
        );
    }
    Ok(())
}

/// Text that roff takes as text: no line of it begins a request.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    escaped
        .lines()
        .map(|l| if l.starts_with(['.', '\'']) { format!("\\&{l}") } else { l.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_synopsis_names_the_values() {
        let mut page = Vec::new();
        render(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        let synopsis = page.lines().find(|line| line.starts_with("\\fBwpgen\\fR [")).unwrap();
        assert!(synopsis.contains("[\\-\\-color <") && synopsis.contains("[\\-C <"), "{synopsis}");
    }
}
