//! `weft.orchestrator.v1.EmbeddingService`.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_product::Product;
use weft_proto::orchestrator::v1::embedding_service_server::EmbeddingService;
use weft_proto::orchestrator::v1::{CreateEmbeddingsRequest, CreateEmbeddingsResponse, Embedding};

use crate::api::account::Account;
use crate::api::chat::Parts;
use crate::domain::model::OFFLINE;
use crate::error::Error;
use crate::models::embedding::{DIMENSIONS_MOST, Texts};
use crate::models::vendor::is_compatible;

/// The model for products that name none.
const USUAL_MODEL: &str = "text-embedding-3-small";
/// Most texts of a request.
const TEXTS_MOST: usize = 256;
/// Most bytes of all texts together.
const BYTES_MOST: usize = 262_144;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct EmbeddingApi(pub Arc<Parts>);

impl EmbeddingApi {
    /// Makes vectors.
    ///
    /// # Errors
    /// A request over a limit, a model that cannot be chosen, and those of `Asker::embed`.
    pub async fn create(
        &self,
        account: &Account,
        request: CreateEmbeddingsRequest,
    ) -> Result<CreateEmbeddingsResponse, Error> {
        let texts = Texts { texts: &request.texts, dimensions: dimensions(request.dimensions)? };
        check(texts)?;
        let product = account.product(&self.0.products)?;
        let usual = usual(product);
        let model = if request.model.is_empty() { usual } else { request.model.as_str() };
        let of_own = || account.own_key(&self.0, model);
        if model != usual && model != OFFLINE && !(is_compatible(model) && of_own().await?.is_some()) {
            let text = "this model cannot be chosen here; leave model empty for the product's, or use offline";
            return Err(Error::Invalid(text.into()));
        }
        let asker = account.asker(&self.0, product).await?;
        let embedded = asker.embed(model, texts).await;
        asker.settled().await;
        let embedded = embedded?;
        let embeddings = embedded.vectors.into_iter().map(|values| Embedding { values }).collect();
        Ok(CreateEmbeddingsResponse { embeddings, model: embedded.model, prompt_tokens: embedded.tokens })
    }
}

/// The product's model, or the one of products that name none.
fn usual(product: &Product) -> &str {
    product.models.embedding.as_deref().unwrap_or(USUAL_MODEL)
}

fn check(texts: Texts<'_>) -> Result<(), Error> {
    if texts.texts.is_empty() || texts.texts.len() > TEXTS_MOST || texts.texts.iter().any(|text| text.trim().is_empty())
    {
        return Err(Error::Invalid("texts must be 1 to 256, none empty".into()));
    }
    if texts.texts.iter().map(String::len).sum::<usize>() > BYTES_MOST {
        return Err(Error::TooLarge("texts must be at most 262144 bytes together; send fewer at once".into()));
    }
    Ok(())
}

fn dimensions(asked: i32) -> Result<Option<u32>, Error> {
    let dimensions = u32::try_from(asked).ok().filter(|dimensions| *dimensions <= DIMENSIONS_MOST);
    let dimensions =
        dimensions.ok_or(Error::Invalid("dimensions must be 1 to 4096, or 0 for the model's own".into()))?;
    Ok(Some(dimensions).filter(|dimensions| *dimensions > 0))
}

#[tonic::async_trait]
impl EmbeddingService for EmbeddingApi {
    async fn create_embeddings(
        &self,
        request: Request<CreateEmbeddingsRequest>,
    ) -> Result<Response<CreateEmbeddingsResponse>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        Ok(Response::new(self.create(&account, request.into_inner()).await?))
    }
}
