mod errors;
mod layers;
mod loading;
mod overrides;
mod profiles;
mod values;
