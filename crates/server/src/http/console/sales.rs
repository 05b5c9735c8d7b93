//! Sales: the list, one of them live, and everything that can be done with them.

use axum::{
    extract::{Request, State},
    response::Response,
};
use flashsale_core::{Error, Result, sale::SaleChange, sale::SaleStatus};
use http::StatusCode;

use super::{App, Desk, Fields, PATH, Problem, SalePath, at, form};
use crate::{
    http::{pages::view, path},
    web::console::{self as web, ConsoleSale, Here, SaleForm},
};

/// `GET /console`: all sales, the newest first.
pub(super) async fn list(State(app): State<App>, desk: Desk) -> Response {
    match app.sales.statuses().await {
        Ok(sales) => {
            let sales = sales.iter().map(console_sale).collect();
            desk.page(StatusCode::OK, web::sales(desk.frame(Here::Sales), sales))
        }
        Err(error) => desk.problem(&error.into()),
    }
}

/// `GET /console/sales/{saleId}`: one sale, live.
pub(super) async fn show(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    on_sale(&app, &desk, sale, |status| {
        desk.page(StatusCode::OK, web::sale(desk.frame(Here::Sales), console_sale(status)))
    })
    .await
}

/// `GET /console/new-sale`. Not below `/console/sales`, where a sale may be called anything.
pub(super) async fn new(State(app): State<App>, desk: Desk) -> Response {
    let form = form::blank(app.sales.now());
    desk.page(StatusCode::OK, web::new_sale(desk.frame(Here::NewSale), form, None))
}

/// `GET /console/sales/{saleId}/clone`: the form of a new sale, filled in.
pub(super) async fn copy(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    on_sale(&app, &desk, sale, |status| {
        let form = form::copy_of(&status.sale, status.now);
        let html = web::new_sale(desk.frame(Here::NewSale), form, Some(view(status)));
        desk.page(StatusCode::OK, html)
    })
    .await
}

/// `POST /console/sales`: makes a sale.
pub(super) async fn create(State(app): State<App>, desk: Desk, request: Request) -> Response {
    let fields = match Fields::read(&app, request).await {
        Ok(fields) => fields,
        Err(problem) => return desk.problem(&problem),
    };
    let mut form = form::typed(&fields);
    let status = match form::request(&mut form) {
        None => StatusCode::BAD_REQUEST,
        Some(wanted) => match app.sales.create(wanted).await {
            Ok(made) => {
                let id = made.sale.id;
                return desk.done(&at(id.as_str()), &format!("Sale {id} is made."));
            }
            Err(error) => refused(&mut form, error),
        },
    };
    desk.page(status, web::new_sale(desk.frame(Here::NewSale), form, None))
}

/// `GET /console/sales/{saleId}/edit`.
pub(super) async fn edit(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    on_sale(&app, &desk, sale, |status| {
        let html = web::edit_sale(desk.frame(Here::Sales), view(status), form::of(&status.sale));
        desk.page(StatusCode::OK, html)
    })
    .await
}

/// `POST /console/sales/{saleId}/edit`: changes what was typed anew.
pub(super) async fn change(State(app): State<App>, desk: Desk, sale: SalePath, request: Request) -> Response {
    let changed = async {
        let status = app.sales.status(&path(sale)?).await?;
        let fields = Fields::read(&app, request).await?;
        let (id, mut form) = (status.sale.id.to_string(), form::typed(&fields));
        form.fields.retain(|field| field.name != "saleId");
        let code = match form::change(&mut form) {
            None => StatusCode::BAD_REQUEST,
            Some(nothing) if nothing == SaleChange::default() => {
                return Ok(desk.done(&at(&id), "Nothing was typed anew, so nothing is changed."));
            }
            Some(change) => match app.sales.change(&id, change).await {
                Ok(_) => return Ok(desk.done(&at(&id), &format!("Sale {id} is changed."))),
                Err(error) => refused(&mut form, error),
            },
        };
        Ok::<_, Problem>(desk.page(code, web::edit_sale(desk.frame(Here::Sales), view(&status), form)))
    };
    changed.await.unwrap_or_else(|problem| desk.problem(&problem))
}

/// `POST …/pause`: stops a sale for now.
pub(super) async fn pause(State(app): State<App>, desk: Desk, sale: SalePath, request: Request) -> Response {
    act(&app, &desk, sale, request, async |sale, _| {
        app.sales.set_paused(&sale, true).await?;
        Ok(format!("Sale {sale} is paused: attempts are turned away until it is resumed."))
    })
    .await
}

/// `POST …/resume`: lets it go on.
pub(super) async fn resume(State(app): State<App>, desk: Desk, sale: SalePath, request: Request) -> Response {
    act(&app, &desk, sale, request, async |sale, _| {
        app.sales.set_paused(&sale, false).await?;
        Ok(format!("Sale {sale} is resumed."))
    })
    .await
}

/// `POST …/end`: ends it now.
pub(super) async fn end(State(app): State<App>, desk: Desk, sale: SalePath, request: Request) -> Response {
    act(&app, &desk, sale, request, async |sale, _| {
        let change = SaleChange { ends_at: Some(app.sales.now()), ..SaleChange::default() };
        app.sales.change(&sale, change).await?;
        Ok(format!("Sale {sale} has ended. What was sold stays sold."))
    })
    .await
}

/// `POST …/restock`: adds units.
pub(super) async fn restock(
    State(app): State<App>,
    desk: Desk,
    sale: SalePath,
    request: Request,
) -> Response {
    act(&app, &desk, sale, request, async |sale, fields| {
        let (units, seen) =
            (form::whole_number(fields.get("units")), form::whole_number(fields.get("total")));
        let Some(units) = units.filter(|units| *units > 0) else {
            return Err(Error::Conflict("Say how many units to add, as a whole number.".to_owned()));
        };
        // What is sent twice, or beside another operator's change, must not add twice.
        let seen = seen.unwrap_or_default();
        let change = SaleChange {
            total_stock: Some(seen.saturating_add(units)),
            expected_stock: Some(seen),
            ..SaleChange::default()
        };
        let total = app.sales.change(&sale, change).await?.sale.total_stock;
        let units = if units == 1 { "1 unit".to_owned() } else { format!("{units} units") };
        Ok(format!("{units} added to sale {sale}: it has {total} in all."))
    })
    .await
}

/// `POST …/delete`: deletes a sale that has no orders.
pub(super) async fn delete(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    let deleted = async {
        let sale = path(sale)?;
        Ok::<_, Problem>(match app.sales.delete(&sale).await {
            Ok(()) => desk.done(PATH, &format!("Sale {sale} is deleted. Its audit trail stays on record.")),
            Err(error) => desk.failed(&place_after(&sale, &error), &said(&error)),
        })
    };
    deleted.await.unwrap_or_else(|problem| desk.problem(&problem))
}

/// `GET …/reset`: what would be lost, and the field to say so.
pub(super) async fn ask_reset(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    on_sale(&app, &desk, sale, |status| {
        let html = web::reset(desk.frame(Here::Sales), console_sale(status), "", None);
        desk.page(StatusCode::OK, html)
    })
    .await
}

/// `POST …/reset`: drops orders and purchasers, if the sale's id was typed.
pub(super) async fn reset(State(app): State<App>, desk: Desk, sale: SalePath, request: Request) -> Response {
    let done = async {
        let status = app.sales.status(&path(sale)?).await?;
        let fields = Fields::read(&app, request).await?;
        let (id, epoch) = (status.sale.id.to_string(), status.sale.epoch);
        let typed = fields.get("confirm").trim();
        let wrong = if typed != id {
            Some(format!("Nothing was reset. Type {id} to say that you mean this sale."))
        } else if fields.get("epoch") != epoch.to_string() {
            // Sent twice, or reset by somebody else: what would be lost is not what was shown.
            Some(format!("Nothing was reset: the sale has come to epoch {epoch} meanwhile."))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let html = web::reset(desk.frame(Here::Sales), console_sale(&status), typed, Some(&wrong));
            return Ok(desk.page(StatusCode::BAD_REQUEST, html));
        }
        Ok::<_, Problem>(match app.sales.reset_epoch(&id, epoch).await {
            Ok(reset) => {
                let epoch = reset.sale.epoch;
                desk.done(&at(&id), &format!("Sale {id} is reset: epoch {epoch} begins with all its units."))
            }
            Err(error) => desk.failed(&at(&id), &said(&error)),
        })
    };
    done.await.unwrap_or_else(|problem| desk.problem(&problem))
}

/// A page on a sale that is there.
async fn on_sale(
    app: &App,
    desk: &Desk,
    sale: SalePath,
    page: impl FnOnce(&SaleStatus) -> Response,
) -> Response {
    let status = async { Ok::<_, Problem>(app.sales.status(&path(sale)?).await?) };
    match status.await {
        Ok(status) => page(&status),
        Err(problem) => desk.problem(&problem),
    }
}

/// Does something with a sale, and goes back to where the button was.
async fn act(
    app: &App,
    desk: &Desk,
    sale: SalePath,
    request: Request,
    deed: impl AsyncFnOnce(String, &Fields) -> Result<String>,
) -> Response {
    let acted = async {
        let sale = path(sale)?;
        let fields = Fields::read(app, request).await?;
        let back = if fields.get("back") == "list" { PATH.to_owned() } else { at(&sale) };
        Ok::<_, Problem>(match deed(sale.clone(), &fields).await {
            Ok(said) => desk.done(&back, &said),
            Err(error @ (Error::UnknownSale(_) | Error::Invalid(_))) => {
                desk.failed(&place_after(&sale, &error), &said(&error))
            }
            Err(error) => desk.failed(&back, &said(&error)),
        })
    };
    acted.await.unwrap_or_else(|problem| desk.problem(&problem))
}

/// Where to say that something failed: at the sale, as long as there is one.
fn place_after(sale: &str, error: &Error) -> String {
    match error {
        Error::UnknownSale(_) => PATH.to_owned(),
        Error::Invalid(invalid) if invalid.field == "saleId" => PATH.to_owned(),
        _ => at(sale),
    }
}

/// An error as a sentence to an operator.
fn said(error: &Error) -> String {
    match error {
        Error::Invalid(invalid) if invalid.field == "endsAt" => {
            "The sale has not begun, so it cannot end now. Edit its times, or pause it.".to_owned()
        }
        Error::Invalid(invalid) if invalid.field == "totalStock" => {
            format!("The stock {}.", invalid.complaint)
        }
        other => {
            let text = other.to_string();
            if text.ends_with('.') { text } else { format!("{text}.") }
        }
    }
}

/// Puts what is wrong where it belongs in the form, and says with which status.
fn refused(form: &mut SaleForm, error: Error) -> StatusCode {
    match &error {
        Error::Invalid(invalid) if form::complain(form, invalid) => return StatusCode::BAD_REQUEST,
        Error::SaleExists(_) if form.complain("saleId", said(&error)) => return StatusCode::CONFLICT,
        Error::Conflict(_) if form.complain("totalStock", said(&error)) => return StatusCode::CONFLICT,
        _ => form.error = Some(said(&error)),
    }
    Problem::from(error).status
}

fn console_sale(status: &SaleStatus) -> ConsoleSale {
    ConsoleSale {
        view: view(status),
        reserved: status.reserved,
        confirmed: status.confirmed,
        epoch: status.sale.epoch.0,
    }
}
