//! `kami proposals` and `approve`, and `--propose` of other commands: what one person proposes and another approves.

use clap::{Args, Subcommand};
use kami_engine::{DualControl, Proposal, ProposalId, ProposalState, Proposed, RequestId};
use kami_net::Client;
use kami_net::client::Wish;
use serde_json::{Value, json};

use crate::code::parse_id;
use crate::exit::Failure;
use crate::output::{Output, table};
use crate::remote::{Remote, Why};
use crate::time;

/// `--propose`, where something takes two people.
#[derive(Args)]
pub struct Propose {
    /// Do not do it, propose it: somebody else approves it with `kami approve`. Takes --why.
    #[arg(long)]
    pub propose: bool,
}

/// List what waits for a second person's approval, and what of the tenant takes one.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  kami proposals\n  kami proposals --all\n  kami proposals withdraw 0123456789abcdef0123456789abcdef"
)]
pub struct ProposalsCommand {
    /// Those that were approved, withdrawn or have lapsed, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Withdraw what one proposed oneself.
    #[command(after_help = "Example:\n  kami proposals withdraw 0123456789abcdef0123456789abcdef")]
    Withdraw {
        /// The proposal.
        #[arg(value_name = "ID", value_parser = parse_proposal)]
        proposal: ProposalId,
    },
}

/// Approve what somebody else proposed; it is done with that.
///
/// Look at it first: `kami proposals` says what it is, who wants it and why.
#[derive(Args)]
#[command(after_help = "Example:\n  kami approve 0123456789abcdef0123456789abcdef")]
pub struct Approve {
    /// The proposal.
    #[arg(value_name = "ID", value_parser = parse_proposal)]
    proposal: ProposalId,
    /// The approval's own request id, 32 hex digits: the same id again is the same approval [default: a new one].
    #[arg(long, value_name = "HEX", value_parser = parse_id)]
    id: Option<RequestId>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    remote: Remote,
}

pub fn parse_proposal(text: &str) -> Result<ProposalId, String> {
    parse_id(text).map(|id| ProposalId(id.0))
}

pub async fn proposals(command: ProposalsCommand, output: &Output) -> Result<(), Failure> {
    let ProposalsCommand { all, why, remote, action } = command;
    remote
        .talk_on(&why, async |client| match action {
            None => {
                let (control, proposals) = client.proposals(all).await?;
                let rows: Vec<_> = proposals.iter().map(value).collect();
                let value = json!({ "control": control_value(control), "proposals": rows });
                output.result(&value, || format!("{}\n{}", control_text(control), lines(&proposals)))
            }
            Some(Action::Withdraw { proposal }) => {
                let withdrawn = client.proposal_withdraw(proposal).await?.value;
                output.result(&value(&withdrawn), || format!("withdrawn: {}", what(&withdrawn)))
            }
        })
        .await
}

pub async fn approve(command: Approve, output: &Output) -> Result<(), Failure> {
    let Approve { proposal, id, why, remote } = command;
    remote
        .talk_on(&why, async |client| {
            let receipt = client.approve(proposal, id).await?;
            let approved = &receipt.value;
            let mut shown = value(approved);
            shown["lsn"] = receipt.lsn.map(|lsn| lsn.bytes()).into();
            output.result(&shown, || {
                let then = match approved.proposed {
                    Proposed::OrderFetch { order, .. } => {
                        format!(
                            "\n#{} may fetch: kami order {order} --approval {proposal}",
                            approved.proposer
                        )
                    }
                    Proposed::Export { batch, .. } => format!(
                        "\n#{} may fetch: kami batch export {batch} --proposal {proposal} --out FILE",
                        approved.proposer
                    ),
                    _ => String::new(),
                };
                format!("approved: {}{then}", what(approved))
            })
        })
        .await
}

/// Proposes something, and says how it goes on.
pub async fn propose(client: &Client, wish: Wish<'_>, why: &Why, output: &Output) -> Result<(), Failure> {
    if !why.is_given() {
        return Err(Failure::usage("a proposal says why: add --why TEXT"));
    }
    let proposal = client.propose(wish, None).await?.value;
    output.result(&value(&proposal), || {
        format!(
            "proposed: {}\nuntil {} somebody else can: kami approve {}",
            what(&proposal),
            time::show(proposal.lapses_ms),
            proposal.id
        )
    })
}

/// What is proposed, in words.
fn what(proposal: &Proposal) -> String {
    match proposal.proposed {
        Proposed::Void { card } => format!("VOID of card {}/{}", card.batch(), card.row()),
        Proposed::RefundValue { card, original, amount } => {
            let amount = if amount == 0 { "all".to_owned() } else { format!("{amount} minor units") };
            format!("REFUND_VALUE of card {}/{}, {amount} of {original}", card.batch(), card.row())
        }
        Proposed::OrderFetch { order, .. } => format!("the codes of order {order}"),
        Proposed::Export { batch, count } => format!("EXPORT of batch {batch}, at most {count} cards"),
        Proposed::TenantControl { tenant, control } => {
            format!("TENANT_CONTROL of tenant {tenant}: {}", control_text(control))
        }
    }
}

pub fn control_text(control: DualControl) -> String {
    let DualControl { on, reveal_cards, lapse_s } = control;
    let lasting = match (lapse_s % 3600, lapse_s % 60) {
        (0, _) => format!("{} h", lapse_s / 3600),
        (_, 0) => format!("{} min", lapse_s / 60),
        _ => format!("{lapse_s} s"),
    };
    match on {
        true => format!(
            "dual control is on, codes of another's order up to {reveal_cards} cards alone, proposals last {lasting}"
        ),
        false => format!("dual control is off, proposals last {lasting}"),
    }
}

pub fn control_value(control: DualControl) -> Value {
    json!({
        "dual_control": control.on,
        "reveal_cards": control.reveal_cards,
        "lapse_s": control.lapse_s,
    })
}

fn value(proposal: &Proposal) -> Value {
    let mut value = json!({
        "id": proposal.id.to_string(),
        "number": proposal.number,
        "tenant": proposal.tenant.0,
        "kind": proposal.proposed.kind().name(),
        "state": proposal.state.name(),
        "proposer": proposal.proposer.0,
        "why": proposal.why,
        "time_ms": proposal.time_ms,
        "lapses_ms": proposal.lapses_ms,
        "ended_by": proposal.ended.map(|(by, _)| by.0),
        "ended_ms": proposal.ended.map(|(_, at_ms)| at_ms),
        "proposed_lsn": proposal.lsn.bytes(),
    });
    if let Some(card) = proposal.proposed.card() {
        value["batch"] = card.batch().into();
        value["row"] = card.row().into();
    }
    match proposal.proposed {
        Proposed::RefundValue { original, amount, .. } => {
            value["original"] = original.to_string().into();
            value["amount_minor"] = amount.into();
        }
        Proposed::OrderFetch { order, from, count } => {
            value["order"] = order.to_string().into();
            (value["from"], value["count"]) = (from.into(), count.into());
        }
        Proposed::Export { batch, count } => {
            (value["batch"], value["count"]) = (batch.0.into(), count.into());
            // Under this id its codes are fetched.
            value["order"] = proposal.id.to_string().into();
        }
        Proposed::TenantControl { tenant, control } => {
            value["of_tenant"] = tenant.0.into();
            value["control"] = control_value(control);
        }
        _ => {}
    }
    value
}

fn lines(proposals: &[Proposal]) -> String {
    let rows = proposals.iter().map(|proposal| {
        let by = match (proposal.state, proposal.ended) {
            (ProposalState::Open, _) => format!("open until {}", time::show(proposal.lapses_ms)),
            (state, Some((by, _))) => format!("{} by #{by}", state.name().to_lowercase()),
            (state, None) => state.name().to_lowercase(),
        };
        vec![
            proposal.id.to_string(),
            what(proposal),
            format!("#{}", proposal.proposer),
            time::show(proposal.time_ms),
            by,
            proposal.why.clone(),
        ]
    });
    table(&["ID", "WHAT", "BY", "PROPOSED", "STATE", "WHY"], &[], rows)
}
