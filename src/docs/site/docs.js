// Starts Swagger UI on the document of this very server. Nothing is loaded from elsewhere.
// Swagger UI has a dark form, and leaves it to the page to ask for it.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // The badge would be an image of another host.
  validatorUrl: null,
});
