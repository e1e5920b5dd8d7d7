"""What makes data: converters and generators."""
