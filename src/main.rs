//! The executable: finds its role and hands over.

use std::process::ExitCode;

use mcias::cli::Call;

fn main() -> ExitCode {
    let call = Call::find(std::env::args_os());
    let program = call.program();
    match call.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(program),
    }
}
